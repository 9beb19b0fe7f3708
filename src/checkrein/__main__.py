"""``python -m checkrein``: the command line."""

from checkrein.cli import main

if __name__ == "__main__":
    main()
