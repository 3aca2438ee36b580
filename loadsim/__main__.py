"""The command `loadsim`, also run by `python -m loadsim`."""

from loadsim.early_signals import handled


def run() -> None:
    """Run the command line and exit with its status."""
    with handled():
        from loadsim.commands import main  # noqa: PLC0415 -- Ctrl-C must be handled during this import

        main(prog_name="loadsim")


if __name__ == "__main__":
    run()
