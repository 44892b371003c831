"""Files of labelled frames: extxyz, ASE databases, npz."""
