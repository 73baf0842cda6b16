"""`python -m bayesnet.cli`, for installations without the `bayesnet` script on the path."""

from bayesnet.cli import main

if __name__ == "__main__":
    main()
