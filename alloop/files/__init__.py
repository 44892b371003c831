"""Reading and writing of files of labelled frames: extxyz, ASE databases, npz."""
