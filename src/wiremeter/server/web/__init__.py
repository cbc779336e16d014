"""The web page: what `make web` built of the sources in `web/`, in `built/`, and how it is served."""
