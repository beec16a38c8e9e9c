"""`python -m tornado_ds`: hands over to the commands."""

from tornado_ds.cli import main

if __name__ == "__main__":
    main()
