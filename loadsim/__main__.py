"""`python -m loadsim`: the same as the command `loadsim`."""

from loadsim.cli import main

if __name__ == "__main__":
    main(prog_name="loadsim")
