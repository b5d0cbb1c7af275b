"""The documentation site: what `make docs` needs beside the pages in docs/."""
