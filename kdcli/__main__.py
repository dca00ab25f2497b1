"""``python -m kdcli``: the form that ``torchrun`` and ``accelerate launch`` start."""

from kdcli.cli import main

if __name__ == "__main__":
    main()
