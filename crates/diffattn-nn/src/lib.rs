//! Layers on top of the differential attention kernels.
