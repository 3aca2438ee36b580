"""The command `loadsim`, also as `python -m loadsim`."""

from loadsim.interrupt import heeded


def run() -> None:
    """Run the command line; does not return."""
    with heeded():
        from loadsim.commands import main  # noqa: PLC0415 -- Ctrl-C is taken while it is imported

        main(prog_name="loadsim")


if __name__ == "__main__":
    run()
