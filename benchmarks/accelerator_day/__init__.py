"""Everything that is to be done when an accelerator is at hand for some minutes.

docs/accelerator.md says how to run it. The modules that run before `setup` has installed the
wheels import only the standard library.
"""
