//! The sentences of NIFTI_AND_PRIVACY.md 6.2 in English and Chinese, by code.
//!
//! It knows neither when a code applies nor what follows from it.

use crate::error::Error;
use crate::volume::Action;
use crate::volume::Finding;
use crate::volume::Param;
use serde::Deserialize;
use serde::Serialize;
use std::collections::BTreeMap;

/// Language of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Lang {
    /// English
    En,
    /// Simplified Chinese
    Zh,
}

/// Code, English, Chinese; `{name}` is a parameter.
pub const MESSAGES: &[(&str, &str, &str)] = &[
    ("E_EMPTY", "The file is empty.", "文件为空。"),
    (
        "E_DICOM",
        "This is a DICOM file. Convert the series to NIfTI first (for example with dcm2niix).",
        "这是 DICOM 文件，请先转换为 NIfTI（如 dcm2niix）。",
    ),
    (
        "E_ZIP",
        "This is a ZIP archive. Unpack it and drop the .nii.gz inside.",
        "这是 ZIP 压缩包，请解压后再拖入其中的 .nii.gz。",
    ),
    (
        "E_NOT_NIFTI",
        "This is not a NIfTI file. Expected .nii, .nii.gz or .hdr + .img.",
        "这不是 NIfTI 文件，应为 .nii、.nii.gz 或 .hdr + .img。",
    ),
    (
        "E_ANALYZE",
        "Analyze 7.5 has no reliable orientation. Convert it to NIfTI.",
        "Analyze 7.5 无可靠方向信息，请转换为 NIfTI。",
    ),
    ("E_PAIR", "This header needs its .img file. Drop both together.", "该头文件需要对应的 .img，请同时拖入。"),
    (
        "E_GZ_CUT",
        "The compressed file is cut short (incomplete download or copy).",
        "压缩文件不完整（下载或复制中断）。",
    ),
    (
        "E_GZ_CRC",
        "The compressed file is damaged: its checksum does not match. Nothing was analysed.",
        "压缩文件已损坏（校验和不符），未进行分析。",
    ),
    ("E_TRUNC", "Voxel data incomplete: {got} of {need} bytes.", "体素数据不完整：{got}/{need} 字节。"),
    ("E_DIM", "Invalid image size in the header.", "头文件中的图像尺寸无效。"),
    ("E_2D", "A 3D volume with at least 20 slices is needed.", "需要至少 20 层的三维数据。"),
    ("E_4D", "{n} volumes found. Choose one.", "文件含 {n} 个时相，请选择。"),
    ("E_DTYPE", "Data type {name} is not CT data.", "数据类型 {name} 不是 CT 数据。"),
    ("E_BIG", "The header claims {size}; the limit is {limit}.", "头文件声明大小为 {size}，超过上限 {limit}。"),
    ("E_OFFSET", "Data offset in the header is invalid.", "头文件中的数据偏移无效。"),
    ("E_SCALE", "Intensity scaling in the header is invalid.", "头文件中的灰度缩放参数无效。"),
    ("E_SPACING", "Voxel spacing in the header is zero or invalid.", "头文件中的体素间距为零或无效。"),
    ("E_XFORM", "The orientation matrix is invalid.", "方向矩阵无效。"),
    ("W_NOXFORM", "Orientation is not stored: left/right cannot be verified.", "未记录方向信息，无法确认左右。"),
    ("W_DISAGREE", "Two orientations disagree (sform used).", "两套方向信息不一致（采用 sform）。"),
    ("W_SHEAR", "Slices are sheared (gantry tilt {deg} deg).", "层面存在剪切（机架倾斜 {deg}°）。"),
    (
        "W_OBLIQUE",
        "The image axes are rotated by {deg} deg; the nearest anatomical axes are used.",
        "图像轴旋转 {deg}°，按最接近的解剖方向处理。",
    ),
    ("W_SPACING", "Unusual voxel spacing {x} x {y} x {z} mm.", "体素间距异常：{x} x {y} x {z} mm。"),
    ("W_UNITS", "Units not stated; mm assumed.", "未注明单位，按毫米处理。"),
    ("H_UNITS", "Converted to mm.", "已换算为毫米。"),
    (
        "H_PIXDIM",
        "Negative voxel size in the header; its absolute value was used.",
        "头文件中的体素尺寸为负，已取绝对值。",
    ),
    ("H_NAME", "The file name does not match its content; the content was used.", "文件名与内容不符，已按内容读取。"),
    (
        "W_BITPIX",
        "bitpix disagrees with the data type; the data type was used.",
        "bitpix 与数据类型不一致，已按数据类型读取。",
    ),
    ("W_EXT", "The header extension list is damaged and was skipped.", "头文件扩展区已损坏，已跳过。"),
    ("W_TRAIL", "Extra bytes after the voxel data were ignored.", "已忽略体素数据之后的多余字节。"),
    ("W_NAN", "{n} invalid voxels replaced by air.", "{n} 个无效体素已替换为空气值。"),
    ("H_PAD", "{n} padding voxels below -1500 HU.", "{n} 个填充体素低于 -1500 HU。"),
    ("W_HU_OFFSET", "Values look like HU + 1024. Subtract 1024?", "数值疑似 HU+1024，是否减去 1024？"),
    (
        "W_HU_RAW",
        "Values are not in HU. Enter slope and intercept or load the metadata CSV.",
        "数值不是 HU，请输入斜率/截距或载入元数据 CSV。",
    ),
    ("E_NOT_HU", "This is not a CT in Hounsfield units.", "这不是以 HU 表示的 CT。"),
    ("W_MASK", "This looks like a segmentation mask.", "疑似分割掩膜。"),
    (
        "W_NOT_CHEST",
        "No lung was recognised. The model was trained on chest CT only.",
        "未识别到肺组织，模型仅适用于胸部 CT。",
    ),
    ("W_FOV", "Part of the chest lies outside the model's field of view.", "部分胸廓位于模型视野之外。"),
];

/// The sentence of a code with its `{}` parameters still in it; `None` for a code that is not in 6.2.
pub fn template(code: &str, lang: Lang) -> Option<&'static str> {
    let (_, en, zh) = MESSAGES.iter().find(|(known, ..)| *known == code)?;
    Some(match lang {
        Lang::En => en,
        Lang::Zh => zh,
    })
}

impl Finding {
    /// The sentence shown to the user.
    pub fn message(&self, lang: Lang) -> String {
        let mut text = template(self.code, lang).unwrap_or(self.code).to_owned();
        for (name, value) in &self.params {
            text = text.replace(&format!("{{{name}}}"), &value.to_string());
        }
        text
    }

    /// The finding that a loader error stands for; `None` for errors of other layers.
    pub fn from_error(error: &Error) -> Option<Finding> {
        template(error.code(), Lang::En)?;
        let params = match error {
            Error::Truncated { got, need } => vec![("got", Param::Count(*got)), ("need", Param::Count(*need))],
            Error::Frames { n } => vec![("n", Param::Count(*n))],
            Error::Datatype { name } => vec![("name", Param::Text(name.clone()))],
            Error::TooBig { size, limit } => {
                vec![("size", Param::Text(size.clone())), ("limit", Param::Text(limit.clone()))]
            }
            _ => Vec::new(),
        };
        let action = if matches!(error, Error::Frames { .. }) { Action::Ask } else { Action::Refuse };
        Some(Finding { code: error.code(), action, params: BTreeMap::from_iter(params) })
    }
}
