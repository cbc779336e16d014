"""From a request's body to a batch that can be stored, or to the reason why not."""
