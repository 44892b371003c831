"""Whether surprise and limits of errors tell where a model is wrong."""
