"""Learn: from folders of radiographs to weights."""
