//! The one error type that leaves the crate; every variant has a stable code.
//!
//! Messages say what was expected before what was found. They never contain file names, header text or report text:
//! a message may be copied into a bug report.

/// Said with every result and in every file that is made, by all layers.
pub const NOTICE: &str = "Research use only. Not a medical device.";

/// Result of everything in this crate that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Anything that a file, a user, a device or a model folder can cause.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    // ── volume: container, header, voxels (codes and messages: NIFTI_AND_PRIVACY.md 6.2) ──
    /// The input has no bytes.
    #[error("The file is empty.")]
    EmptyFile,
    /// A DICOM file, recognised by `DICM` at byte 128.
    #[error("This is a DICOM file. Convert the series to NIfTI first (for example with dcm2niix).")]
    Dicom,
    /// A ZIP archive.
    #[error("This is a ZIP archive. Unpack it and drop the .nii.gz inside.")]
    Zip,
    /// Neither NIfTI-1 nor NIfTI-2 in either byte order.
    #[error("This is not a NIfTI file. Expected .nii, .nii.gz or .hdr + .img.")]
    NotNifti,
    /// Analyze 7.5: a 348-byte header without magic.
    #[error("Analyze 7.5 has no reliable orientation. Convert it to NIfTI.")]
    Analyze,
    /// A header of a pair without its image half.
    #[error("This header needs its .img file. Drop both together.")]
    Pair,
    /// The gzip stream ends early.
    #[error("The compressed file is cut short (incomplete download or copy).")]
    GzipCut,
    /// CRC32 or ISIZE of a gzip member differs, or non-zero bytes follow the last member.
    #[error("The compressed file is damaged: its checksum does not match. Nothing was analysed.")]
    GzipChecksum,
    /// Fewer voxel bytes than the header asks for.
    #[error("Voxel data incomplete: {got} of {need} bytes.")]
    Truncated {
        /// bytes found
        got: u64,
        /// bytes the header needs
        need: u64,
    },
    /// `dim[0]` outside 1..=7, or a used dimension that is not positive.
    #[error("Invalid image size in the header.")]
    Dimensions,
    /// Fewer than three dimensions above 1, or fewer than 20 slices.
    #[error("A 3D volume with at least 20 slices is needed.")]
    NotThreeD,
    /// More than one frame and none was chosen.
    #[error("{n} volumes found. Choose one.")]
    Frames {
        /// number of frames in the file
        n: u64,
    },
    /// A voxel type that is not CT data: RGB, complex, binary, 128-bit.
    #[error("Data type {name} is not CT data.")]
    Datatype {
        /// the standard's name of the type
        name: String,
    },
    /// Over a limit of [`crate::volume::Limits`].
    #[error("The header claims {size}; the limit is {limit}.")]
    TooBig {
        /// what the header claims, with its unit
        size: String,
        /// the limit, with its unit
        limit: String,
    },
    /// `vox_offset` not finite, not whole, too small or beyond the budget.
    #[error("Data offset in the header is invalid.")]
    Offset,
    /// Slope infinite, or slope finite and intercept not.
    #[error("Intensity scaling in the header is invalid.")]
    Scale,
    /// Spacing zero or not finite.
    #[error("Voxel spacing in the header is zero or invalid.")]
    Spacing,
    /// No usable orientation matrix.
    #[error("The orientation matrix is invalid.")]
    Transform,
    /// Findings of the loader that the user has to accept before encoding.
    #[error("confirmation needed for: {}", .codes.join(", "))]
    NeedsConfirmation {
        /// codes of the findings, e.g. `W_NOXFORM`
        codes: Vec<String>,
    },

    // ── text ──
    /// A report, report file or tokenizer that cannot be used.
    #[error("text: {0}")]
    TextInput(String),

    // ── weights ──
    /// A checkpoint that is not what its format says.
    #[error("checkpoint: {0}")]
    Checkpoint(String),
    /// The manifest is not of a schema that this version reads.
    #[error("manifest: {0}")]
    Manifest(String),
    /// Tensors that the configuration needs and the weights lack, the reverse, and those of another shape: all of them.
    #[error("weights: {} tensors are missing [{}], {} are unknown [{}], {} have another shape [{}]", .missing.len(), .missing.join(", "), .unknown.len(), .unknown.join(", "), .misshapen.len(), .misshapen.join(", "))]
    Tensors {
        /// needed and not there
        missing: Vec<String>,
        /// there and not needed
        unknown: Vec<String>,
        /// there in another shape: name, needed shape, found shape
        misshapen: Vec<String>,
    },
    /// A model file whose size or SHA-256 differs from the manifest.
    #[error("weights: {what} should be {expected}, found {found}; fetch the model again")]
    Integrity {
        /// which shard and which property
        what: String,
        /// by the manifest
        expected: String,
        /// by the bytes
        found: String,
    },
    /// An operation that needs a model before one was loaded.
    #[error("no model is loaded")]
    NoModel,

    /// A call for a part that the model folder was made without.
    #[error("this needs {needed}, found a model folder for {purpose}, which has none; `convert --for {cure}` keeps it")]
    Purpose {
        /// part of the model
        needed: &'static str,
        /// what the folder is for
        purpose: &'static str,
        /// purposes of folders that have the part
        cure: &'static str,
    },
    // ── store of latents ──
    /// A store that is not one, is of another model, or already has what is put into it.
    #[error("store: {0}")]
    Store(String),

    // ── device ──
    /// No WebGPU adapter at all.
    #[error("no WebGPU adapter: {0}")]
    NoWebGpu(String),
    /// Only a software adapter, and it was not allowed.
    #[error("the only adapter is software ({0}): allow it explicitly, or use the CPU backend")]
    SoftwareAdapter(String),
    /// A device limit below what the model needs, or below what WebGPU promises.
    #[error("the GPU device needs {limit} of at least {needed}, it offers {found}")]
    DeviceLimit {
        /// WebGPU's name of the limit
        limit: &'static str,
        /// by the model or its kernels
        needed: u64,
        /// by the adapter
        found: u64,
    },
    /// Out of memory on the GPU.
    #[error("the GPU is out of memory: {0}")]
    GpuOutOfMemory(String),
    /// The device was lost; a new session can be opened.
    #[error("the GPU device was lost: {reason}")]
    DeviceLost {
        /// what the platform says
        reason: String,
        /// whether it was given back on purpose
        destroyed: bool,
    },
    /// The device rejected a shader, a pipeline or a command: no result of this call can be trusted.
    #[error("the GPU rejected work of this call, its result was thrown away: {0}")]
    ShaderInvalid(String),
    /// A result that cannot be right: not finite, or a zero vector.
    #[error("the result is not usable: {0}")]
    BadResult(String),
    /// The device computes other numbers than are known to be right.
    #[error("this device computes wrong numbers, so it is not used: {0}; update its driver, or use the CPU")]
    SelfTest(String),

    // ── calls ──
    /// A caller's mistake.
    #[error("invalid argument: {0}")]
    InvalidArgument(String),
    /// The caller asked to stop.
    #[error("the call was aborted")]
    Aborted,
}

impl Error {
    /// [`Error::Tensors`] for what is not empty of the three lists.
    pub(crate) fn tensors(missing: Vec<String>, unknown: Vec<String>, misshapen: Vec<String>) -> Result<()> {
        if missing.is_empty() && unknown.is_empty() && misshapen.is_empty() {
            return Ok(());
        }
        Err(Error::Tensors { missing, unknown, misshapen })
    }

    /// The stable code of this error (NIFTI_AND_PRIVACY.md 6.2, WEB_PACKAGE.md 5).
    pub fn code(&self) -> &'static str {
        match self {
            Error::EmptyFile => "E_EMPTY",
            Error::Dicom => "E_DICOM",
            Error::Zip => "E_ZIP",
            Error::NotNifti => "E_NOT_NIFTI",
            Error::Analyze => "E_ANALYZE",
            Error::Pair => "E_PAIR",
            Error::GzipCut => "E_GZ_CUT",
            Error::GzipChecksum => "E_GZ_CRC",
            Error::Truncated { .. } => "E_TRUNC",
            Error::Dimensions => "E_DIM",
            Error::NotThreeD => "E_2D",
            Error::Frames { .. } => "E_4D",
            Error::Datatype { .. } => "E_DTYPE",
            Error::TooBig { .. } => "E_BIG",
            Error::Offset => "E_OFFSET",
            Error::Scale => "E_SCALE",
            Error::Spacing => "E_SPACING",
            Error::Transform => "E_XFORM",
            Error::NeedsConfirmation { .. } => "NEEDS_CONFIRMATION",
            Error::TextInput(_) => "TEXT_INPUT",
            Error::Checkpoint(_) => "CHECKPOINT",
            Error::Manifest(_) => "MANIFEST",
            Error::Tensors { .. } => "MODEL_SHAPE",
            Error::Integrity { .. } => "INTEGRITY",
            Error::NoModel => "NO_MODEL",
            Error::Purpose { .. } => "MODEL_PURPOSE",
            Error::Store(_) => "STORE",
            Error::NoWebGpu(_) => "NO_WEBGPU",
            Error::SoftwareAdapter(_) => "SOFTWARE_ADAPTER",
            Error::DeviceLimit { .. } => "LIMITS",
            Error::GpuOutOfMemory(_) => "GPU_OOM",
            Error::DeviceLost { .. } => "DEVICE_LOST",
            Error::ShaderInvalid(_) => "SHADER_INVALID",
            Error::BadResult(_) => "BAD_RESULT",
            Error::SelfTest(_) => "SELF_TEST_FAILED",
            Error::InvalidArgument(_) => "INVALID_ARGUMENT",
            Error::Aborted => "ABORTED",
        }
    }

    /// Whether the same call may succeed after the cure that the message names.
    pub fn is_retryable(&self) -> bool {
        matches!(
            self,
            Error::DeviceLost { .. }
                | Error::SoftwareAdapter(_)
                | Error::GpuOutOfMemory(_)
                | Error::NeedsConfirmation { .. }
                | Error::Aborted
        )
    }
}
