//! Stands in for `gpu.rs` in builds without the feature `gpu`: there is no such device.

use super::DeviceInfo;
use crate::error::Error;
use crate::error::Result;
use burn::tensor::Device as TensorDevice;

#[derive(Debug, Clone)]
pub(super) enum Gpu {}

impl Gpu {
    pub(super) async fn open(
        _allow_software: bool,
        _described: Option<&str>,
    ) -> Result<(TensorDevice, DeviceInfo, Self)> {
        Err(Error::NoWebGpu("this build is for the CPU".into()))
    }

    pub(super) fn faults(&self) -> Result<usize> {
        match *self {}
    }

    pub(super) fn check(&self, _seen: usize) -> Result<()> {
        match *self {}
    }

    pub(super) async fn settle(&self) -> Result<()> {
        match *self {}
    }

    pub(super) fn destroy(&self) {
        match *self {}
    }
}
