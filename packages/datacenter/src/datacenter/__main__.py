"""`python -m datacenter`: the same as the command `datacenter`."""

from datacenter.commands import main

if __name__ == "__main__":
    main()
