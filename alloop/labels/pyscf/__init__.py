"""Labels by PySCF, which only this package imports, and only in a child process."""
