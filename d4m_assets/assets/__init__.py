"""One file per artifact: what it is called, what people see of it, what must hold of it."""
