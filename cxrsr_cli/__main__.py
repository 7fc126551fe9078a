"""Run the command as ``python -m cxrsr_cli``."""

from cxrsr_cli.commands.app import main

if __name__ == "__main__":
    main()
