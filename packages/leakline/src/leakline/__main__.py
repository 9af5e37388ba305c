"""`python -m leakline`: the same as the command `leakline`."""

from leakline.commands import main

if __name__ == "__main__":
    main()
