"""Receive: instances from peers, straight to the disk, whoever the peers are."""
