"""PySCF: the only folder that imports it, and only inside the child process."""
