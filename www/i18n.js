// Every text a person can read, in English and Simplified Chinese. Loader codes and messages: NIFTI_AND_PRIVACY.md 6.2.

/** @type {Record<string, [en: string, zh: string]>} */
export const MESSAGES = {
  title: ['ctmatch: chest CT and reports', 'ctmatch：胸部 CT 与报告匹配'],
  notice_lead: ['Research use only. Not a medical device.', '仅供科研使用，非医疗器械。'],
  notice: [
    'Not cleared or approved by any authority. Scores are similarities between an image and texts, not probabilities of disease, and must not be used for diagnosis, triage, treatment or patient management.',
    '未经任何监管机构批准。分数表示影像与文本的相似程度，不是患病概率，不得用于诊断、分诊、治疗或患者管理。',
  ],
  notice_weights: ['Model weights: {license}.', '模型权重许可：{license}。'],
  untrained: ['untrained: scores have no meaning', '模型未训练：分数没有意义'],
  untrained_more: [
    'The bundled model has random weights. It shows how the page works, nothing else.',
    '内置模型为随机权重，仅用于演示页面功能。',
  ],
  language: ['Language', '语言'],
  local_only: ['Files stay on this machine: the page sends nothing.', '文件不离开本机，页面不发送任何数据。'],

  volume: ['CT volume', 'CT 影像'],
  drop: ['Drop a .nii.gz, a .nii, or a .hdr with its .img here', '将 .nii.gz、.nii 或 .hdr 与 .img 拖到此处'],
  choose_file: ['Choose a file', '选择文件'],
  use_sample: ['Use the sample', '使用示例'],
  sample_note: ['A synthetic chest and four invented reports. No patient data.', '合成胸部影像与四份虚构报告，不含患者数据。'],
  dims: ['Size', '尺寸'],
  spacing: ['Spacing', '间距'],
  orientation: ['Orientation', '方向'],
  datatype: ['Data type', '数据类型'],
  hu_range: ['HU range', 'HU 范围'],
  findings: ['File check', '文件检查'],
  findings_none: ['nothing unusual', '无异常'],
  accept: ['accept', '接受'],
  accept_W_NOXFORM: [
    'accept: take the stored order as left, posterior, superior',
    '接受：按左、后、上的存储顺序处理',
  ],
  subtract_1024: ['Subtract 1024', '减去 1024'],
  slope: ['Slope', '斜率'],
  intercept: ['Intercept', '截距'],
  apply_scaling: ['Apply', '应用'],
  other_form: ['Use the other orientation', '采用另一套方向信息'],
  assume_lps: ['Assume left, posterior, superior', '假定为左、后、上'],
  corrected: ['Read with your correction:', '已按您的校正读取：'],
  corrected_scaling: ['slope {slope}, intercept {intercept}', '斜率 {slope}，截距 {intercept}'],
  uncorrect: ['Undo', '撤销'],
  orientation_unknown: [
    'Orientation unknown: left/right cannot be verified, so the views show ? until you accept it in the file check.',
    '方向未知：无法确认左右。在文件检查中接受之前，视图以 ? 标示方向。',
  ],
  orientation_assumed: [
    'Orientation assumed, not verified: left and right may be swapped.',
    '方向为假定，未经验证：左右可能颠倒。',
  ],
  assumed: ['assumed', '假定'],

  privacy: ['Privacy check', '隐私检查'],
  privacy_none: [
    'No obvious identifier found. This is not proof of anonymity: only text patterns were checked.',
    '未发现明显的身份信息。这不代表已匿名化：仅检查了文本模式。',
  ],
  privacy_some: [
    'Possible identifiers: {n} (hidden, click to show). You can save a clean copy.',
    '可能的身份信息：{n} 处（已遮蔽，点击显示）。可另存清理后的副本。',
  ],
  privacy_voxels: [
    'The image itself may identify a person (face, burned-in text). It was not checked.',
    '影像本身可能识别个人身份（面部、烧录文字），未作检查。',
  ],
  reveal: ['Show', '显示'],
  conceal: ['Hide', '遮蔽'],
  save_clean: ['Save a clean copy', '另存清理后的副本'],
  phase_clean: ['Making the clean copy', '生成清理后的副本'],
  clean_saved: ['Clean copy saved as {name}.', '清理后的副本已保存为 {name}。'],
  place_file_name: ['file name', '文件名'],
  place_data_type: ['header: data_type', '头文件：data_type'],
  place_db_name: ['header: db_name', '头文件：db_name'],
  place_descrip: ['header: descrip', '头文件：descrip'],
  place_aux_file: ['header: aux_file', '头文件：aux_file'],
  place_intent_name: ['header: intent_name', '头文件：intent_name'],
  place_unused_str: ['header: unused_str', '头文件：unused_str'],
  place_extension: ['header extension {code}', '头文件扩展区 {code}'],
  place_before_the_voxels: ['before the voxels', '体素数据之前'],
  place_after_the_voxels: ['after the voxels', '体素数据之后'],
  place_gzip_header: ['gzip header', 'gzip 头'],
  place_sidecar: ['sidecar', '附属 JSON'],
  'rule_extension-kind': ['extension of a kind that often holds personal data', '常含个人信息的扩展区类型'],
  'rule_free-text': ['free text, please read', '自由文本，请人工查看'],
  'rule_gzip-name': ['original file name or comment in the gzip header', 'gzip 头中的原文件名或注释'],
  'rule_dicom-tag': ['DICOM element about a person or an examination', '与个人或检查有关的 DICOM 元素'],
  rule_key: ['word that announces an identifier', '提示身份信息的关键词'],
  'rule_person-name': ['name of a person', '人名'],
  rule_title: ['person with a title or signature', '带称谓或签名的人名'],
  rule_date: ['date', '日期'],
  rule_time: ['time of day', '时间'],
  rule_number: ['number of 6 to 12 digits', '6 至 12 位数字'],
  rule_mobile: ['mobile number', '手机号'],
  'rule_national-id': ['national identity number', '身份证号'],
  rule_uid: ['unique identifier of DICOM', 'DICOM 唯一标识符'],
  rule_email: ['e-mail address', '电子邮箱'],
  rule_account: ['user and host', '用户名与主机名'],
  rule_url: ['web address', '网址'],
  'rule_ip-address': ['network address', 'IP 地址'],
  rule_path: ['path with a user or host name', '含用户名或主机名的路径'],
  action_refuse: ['not usable', '不可用'],
  action_ask: ['please confirm', '请确认'],
  action_note: ['note', '提示'],
  frame: ['Volume number', '时相编号'],
  read_frame: ['Read this volume', '读取该时相'],

  axial: ['axial', '轴位'],
  coronal: ['coronal', '冠状位'],
  sagittal: ['sagittal', '矢状位'],
  slice_of: ['{plane} slice {n} of {total}, {mm} mm', '{plane} 第 {n}/{total} 层，{mm} mm'],
  slice_slider: ['{plane} slice', '{plane} 层面'],
  window: ['Window', '窗'],
  window_lung: ['lung', '肺窗'],
  window_mediastinum: ['mediastinum', '纵隔窗'],
  window_bone: ['bone', '骨窗'],
  window_model: ['model', '模型窗'],
  window_auto: ['auto', '自动'],
  width: ['width', '窗宽'],
  level: ['level', '窗位'],
  probe: ['{hu} HU at voxel {x}, {y}, {z}', '{hu} HU，体素 {x}, {y}, {z}'],
  probe_not_hu: ['{hu} (not HU) at voxel {x}, {y}, {z}', '{hu}（非 HU），体素 {x}, {y}, {z}'],
  viewer_keys: [
    'In a view: wheel, arrows, PgUp/PgDn, Home/End change the slice; 0-4 set the window; a click moves the cross-hair.',
    '视图内：滚轮、方向键、PgUp/PgDn、Home/End 切换层面；0-4 设置窗；单击移动十字线。',
  ],

  reports: ['Candidate reports', '候选报告'],
  paste: ['Paste reports, separated by a blank line or a line ---', '粘贴报告，以空行或单独一行 --- 分隔'],
  add_pasted: ['Add', '添加'],
  load_reports: ['Load a file (txt, csv, tsv, json, jsonl)', '载入文件（txt、csv、tsv、json、jsonl）'],
  clear_reports: ['Remove all', '全部移除'],
  remove: ['Remove report {id}', '移除报告 {id}'],
  report_count: ['{n} reports', '{n} 份报告'],
  report_count_one: ['1 report', '1 份报告'],
  duplicates: ['{n} equal texts merged', '已合并 {n} 份相同文本'],
  first_shown: ['The first {n} are shown.', '仅显示前 {n} 项。'],
  too_many: ['The limit is {limit} reports; {n} were left out.', '上限为 {limit} 份报告，有 {n} 份未加入。'],
  english_only: ['The model was trained on English reports.', '模型以英文报告训练。'],
  tokens: ['{n} tokens', '{n} 个词元'],
  hints: ['possible identifiers: {n}', '可能的身份信息：{n} 处'],
  hints_review: [
    'Reports with possible identifiers: {n} of {total}. Rules miss names: a person must review the texts.',
    '含可能身份信息的报告：{n}/{total}。规则可能漏掉姓名，文本须由人工审阅。',
  ],
  truncated: ['cut at {n} tokens', '已在 {n} 个词元处截断'],

  settings: ['Where the model runs', '模型运行位置'],
  backend_webgpu: ['GPU (WebGPU)', 'GPU（WebGPU）'],
  backend_cpu: ['CPU (slow)', 'CPU（较慢）'],
  allow_software: ['Allow software adapter (slow)', '允许软件适配器（较慢）'],
  use_cpu: ['Use the CPU instead', '改用 CPU'],
  use_software: ['Allow the software adapter and rank', '允许软件适配器并排序'],
  backend_none: ['model not loaded', '模型未加载'],
  software: ['software', '软件'],
  restore: ['Restore and rank again', '恢复并重新排序'],
  reopen: ['Start again', '重新开始'],

  rank: ['Rank', '排序'],
  cancel: ['Cancel', '取消'],
  needs_volume: ['First open a CT volume.', '请先打开 CT 影像。'],
  needs_reports: ['Add at least one report.', '请至少添加一份报告。'],
  needs_accept: ['Confirm the marked points of the file check first.', '请先确认文件检查中的标记项。'],
  'only_zero-shot': [
    'This model is for zero-shot scores: it has no text tower and cannot rank reports.',
    '该模型用于零样本评分：没有文本编码器，无法对报告排序。',
  ],
  only_images: [
    'This model encodes volumes only: it has no text tower and cannot rank reports.',
    '该模型仅编码影像：没有文本编码器，无法对报告排序。',
  ],
  only_reports: [
    'This model encodes reports only: it has no image tower and cannot compare them with a volume.',
    '该模型仅编码报告：没有影像编码器，无法与影像比较。',
  ],
  ready: ['Ready to rank.', '可以排序。'],
  done: ['Done in {s} s.', '完成，用时 {s} 秒。'],
  cancelled: ['Cancelled. Everything loaded is still here.', '已取消，已载入的内容均保留。'],
  phase_wasm: ['Loading the program', '加载程序'],
  phase_model: ['Loading the model', '加载模型'],
  phase_weights: ['Loading the model', '加载模型'],
  phase_read: ['Reading the file', '读取文件'],
  phase_compile: ['Preparing the GPU', '准备 GPU'],
  phase_preprocess: ['Resampling the volume', '重采样影像'],
  phase_upload: ['Sending the volume to the device', '传输影像到设备'],
  phase_encode: ['Encoding the volume', '编码影像'],
  phase_text: ['Encoding the reports', '编码报告'],
  amount_bytes: ['{done} of {total} MB', '{done}/{total} MB'],
  amount_steps: ['{done} of {total}', '{done}/{total}'],

  result: ['Result', '结果'],
  col_rank: ['Rank', '名次'],
  col_report: ['Report', '报告'],
  col_cosine: ['Cosine', '余弦相似度'],
  col_margin: ['Margin', '与下一名之差'],
  col_bar: ['relative', '相对'],
  col_share: ['Share within this list ({n})', '列表内占比（{n}）'],
  tie: ['tie', '并列'],
  noise: ['Lead is within model noise.', '领先幅度在模型误差范围内。'],
  no_background: [
    'No background distribution exists for this model: the best of this list may still be a poor match.',
    '该模型尚无背景分布：列表中的最佳项仍可能匹配不佳。',
  ],
  export: ['Save as JSON', '保存为 JSON'],
  timing: ['Volume encoded in {s} s on {adapter}.', '影像编码用时 {s} 秒（{adapter}）。'],
  copy_diagnostics: ['Copy diagnostics', '复制诊断信息'],
  copied: ['Copied.', '已复制。'],
  error_heading: ['This did not work', '操作未成功'],

  E_READ: ['The file cannot be read any more. Choose it again.', '文件已无法读取，请重新选择。'],
  E_EMPTY: ['The file is empty.', '文件为空。'],
  E_DICOM: [
    'This is a DICOM file. Convert the series to NIfTI first (for example with dcm2niix).',
    '这是 DICOM 文件，请先转换为 NIfTI（如 dcm2niix）。',
  ],
  E_ZIP: ['This is a ZIP archive. Unpack it and drop the .nii.gz inside.', '这是 ZIP 压缩包，请解压后再拖入其中的 .nii.gz。'],
  E_NOT_NIFTI: [
    'This is not a NIfTI file. Expected .nii, .nii.gz or .hdr + .img.',
    '这不是 NIfTI 文件，应为 .nii、.nii.gz 或 .hdr + .img。',
  ],
  E_ANALYZE: ['Analyze 7.5 has no reliable orientation. Convert it to NIfTI.', 'Analyze 7.5 无可靠方向信息，请转换为 NIfTI。'],
  E_PAIR: ['This header needs its .img file. Drop both together.', '该头文件需要对应的 .img，请同时拖入。'],
  E_GZ_CUT: ['The compressed file is cut short (incomplete download or copy).', '压缩文件不完整（下载或复制中断）。'],
  E_GZ_CRC: [
    'The compressed file is damaged: its checksum does not match. Nothing was analysed.',
    '压缩文件已损坏（校验和不符），未进行分析。',
  ],
  E_TRUNC: ['Voxel data incomplete: {got} of {need} bytes.', '体素数据不完整：{got}/{need} 字节。'],
  E_DIM: ['Invalid image size in the header.', '头文件中的图像尺寸无效。'],
  E_2D: ['A 3D volume with at least 20 slices is needed.', '需要至少 20 层的三维数据。'],
  E_4D: ['{n} volumes found. Choose one.', '文件含 {n} 个时相，请选择。'],
  E_DTYPE: ['Data type {name} is not CT data.', '数据类型 {name} 不是 CT 数据。'],
  E_BIG: ['The header claims {size}; the limit is {limit}.', '头文件声明大小为 {size}，超过上限 {limit}。'],
  E_OFFSET: ['Data offset in the header is invalid.', '头文件中的数据偏移无效。'],
  E_SCALE: ['Intensity scaling in the header is invalid.', '头文件中的灰度缩放参数无效。'],
  E_SPACING: ['Voxel spacing in the header is zero or invalid.', '头文件中的体素间距为零或无效。'],
  E_XFORM: ['The orientation matrix is invalid.', '方向矩阵无效。'],
  E_NOT_HU: ['This is not a CT in Hounsfield units.', '这不是以 HU 表示的 CT。'],
  W_NOXFORM: ['Orientation is not stored: left/right cannot be verified.', '未记录方向信息，无法确认左右。'],
  W_DISAGREE: ['Two orientations disagree (sform used).', '两套方向信息不一致（采用 sform）。'],
  W_SHEAR: ['Slices are sheared (gantry tilt {deg} deg).', '层面存在剪切（机架倾斜 {deg}°）。'],
  W_OBLIQUE: [
    'The image axes are rotated by {deg} deg; the nearest anatomical axes are used.',
    '图像轴旋转 {deg}°，按最接近的解剖方向处理。',
  ],
  W_SPACING: ['Unusual voxel spacing {x} x {y} x {z} mm.', '体素间距异常：{x} x {y} x {z} mm。'],
  W_UNITS: ['Units not stated; mm assumed.', '未注明单位，按毫米处理。'],
  H_UNITS: ['Converted to mm.', '已换算为毫米。'],
  H_PIXDIM: ['Negative voxel size in the header; its absolute value was used.', '头文件中的体素尺寸为负，已取绝对值。'],
  H_NAME: ['The file name does not match its content; the content was used.', '文件名与内容不符，已按内容读取。'],
  W_BITPIX: ['bitpix disagrees with the data type; the data type was used.', 'bitpix 与数据类型不一致，已按数据类型读取。'],
  W_EXT: ['The header extension list is damaged and was skipped.', '头文件扩展区已损坏，已跳过。'],
  W_TRAIL: ['Extra bytes after the voxel data were ignored.', '已忽略体素数据之后的多余字节。'],
  W_NAN: ['{n} invalid voxels replaced by air.', '{n} 个无效体素已替换为空气值。'],
  H_PAD: ['{n} padding voxels below -1500 HU.', '{n} 个填充体素低于 -1500 HU。'],
  W_HU_OFFSET: ['Values look like HU + 1024. Subtract 1024?', '数值疑似 HU+1024，是否减去 1024？'],
  W_HU_RAW: [
    'Values are not in HU. Enter slope and intercept or load the metadata CSV.',
    '数值不是 HU，请输入斜率/截距或载入元数据 CSV。',
  ],
  W_MASK: ['This looks like a segmentation mask.', '疑似分割掩膜。'],
  W_NOT_CHEST: ['No lung was recognised. The model was trained on chest CT only.', '未识别到肺组织，模型仅适用于胸部 CT。'],
  W_FOV: ["Part of the chest lies outside the model's field of view.", '部分胸廓位于模型视野之外。'],

  NO_WEBGPU: [
    'WebGPU is not available here ({reason}). Use a current Chrome, Edge or Safari 26 over https or localhost, or the CPU.',
    '此处无法使用 WebGPU（{reason}）。请在新版 Chrome、Edge 或 Safari 26 中通过 https 或 localhost 打开，或改用 CPU。',
  ],
  SOFTWARE_ADAPTER: [
    'The only GPU adapter is software ({adapter}): very slow. It was not used.',
    '仅有软件 GPU 适配器（{adapter}），速度很慢，未使用。',
  ],
  LIMITS: [
    'The device offers too little: {limit} is {found}, the model needs {needed}.',
    '设备能力不足：{limit} 为 {found}，模型需要 {needed}。',
  ],
  GPU_OOM: ['The GPU ran out of memory. Close other tabs or use a smaller variant.', 'GPU 显存不足，请关闭其他标签页或使用更小的模型。'],
  DEVICE_LOST: ['The GPU device was lost. Volume and reports are kept.', 'GPU 设备已丢失，影像与报告已保留。'],
  SHADER_INVALID: [
    'The GPU refused part of the computation, so there is no result.',
    'GPU 拒绝了部分计算，因此没有结果。',
  ],
  SELF_TEST_FAILED: ['This graphics device computes wrong numbers, so it is not used. Update its driver, or use the processor.', '此图形设备计算结果错误，因此不予使用。请更新驱动程序，或改用处理器。'],
  BAD_RESULT: ['The computation gave invalid numbers; no result is shown.', '计算得到无效数值，不显示结果。'],
  CSP_WASM_BLOCKED: [
    "This site's policy blocks WebAssembly: script-src needs 'wasm-unsafe-eval'.",
    "网站策略阻止 WebAssembly：script-src 需要 'wasm-unsafe-eval'。",
  ],
  WORKER_BLOCKED: ['The background worker could not start.', '后台线程无法启动。'],
  WASM_ABORT: ['The program stopped unexpectedly. Start again.', '程序意外停止，请重新开始。'],
  NETWORK: ['A file of this site could not be loaded: {url} ({status}).', '无法加载本站文件：{url}（{status}）。'],
  NETWORK_POLICY: ['A request to another site was refused: {url}.', '已拒绝对其他网站的请求：{url}。'],
  OFFLINE_MISS: ['Offline: {url} was not requested.', '离线：未请求 {url}。'],
  INTEGRITY: ['A model file is damaged or incomplete: {path}.', '模型文件损坏或不完整：{path}。'],
  MANIFEST: ['The model description is not valid.', '模型描述文件无效。'],
  MODEL_SHAPE: ['The model files do not fit together.', '模型文件不匹配。'],
  MODEL_PURPOSE: [
    'The model lacks the part that this needs: it was converted for another purpose.',
    '该模型缺少此操作所需的部分：它是为其他用途转换的。',
  ],
  NO_MODEL: ['No model is loaded.', '模型未加载。'],
  NEEDS_CONFIRMATION: ['Confirm first: {codes}.', '请先确认：{codes}。'],
  TEXT_INPUT: ['The reports could not be read.', '无法读取报告。'],
  INVALID_ARGUMENT: ['An internal call was wrong.', '内部调用有误。'],
  CLOSED: ['The session is closed. Start again.', '会话已关闭，请重新开始。'],
  UNKNOWN: ['An unexpected error happened.', '发生意外错误。'],

  'insecure-context': ['the page is not open over https or localhost', '页面未通过 https 或 localhost 打开'],
  'no-navigator-gpu': ['this browser has no WebGPU', '浏览器不支持 WebGPU'],
  'no-adapter': ['no suitable graphics adapter', '没有可用的图形适配器'],

  CHECKPOINT: ['A weight file of the model is not valid.', '模型权重文件无效。'],
  net_heading: ['Network:', '网络：'],
  net_open: ['open to the files of this site', '仅可请求本站文件'],
  net_sealed: ['sealed, nothing is requested', '已封闭，不发出任何请求'],
  net_single: ['one file from the disk, nothing can be requested', '单文件页面，无法发出任何请求'],
  net_no_worker: ['not sealed', '未封闭'],
  net_offline_ready: ['Works without a network: every file of this release is stored and checked.', '可离线使用：本版本全部文件已存储并校验。'],
  net_offline_missing: ['The files of this release are not stored: a reload needs the network.', '本版本文件尚未存储，重新加载需要网络。'],
  net_no_connection: ['This computer is offline.', '本机当前离线。'],
  net_no_headers: [
    'This server sends no policy headers, so this first load is less protected. Reload once: from then on the page adds them itself.',
    '服务器未发送安全策略标头，首次加载的防护较弱。请重新加载一次，此后由本页自行添加。',
  ],
  net_update: ['A newer release is stored. It starts with a reload; volume and reports have to be opened again.', '新版本已存储，重新加载后启用；影像与报告需重新打开。'],
  net_replaced: ['Another tab has started a newer release. Reload before going on.', '另一标签页已启用新版本，请重新加载后继续。'],
  net_seal: ['Seal the network', '封闭网络'],
  net_unlock: ['Unlock the network', '解除封闭'],
  net_use_update: ['Reload with the newer release', '以新版本重新加载'],
  net_storage: ['Stored data', '存储的数据'],
  net_urls: ['Requested addresses', '已请求的地址'],
  stored_title: ['ctmatch: stored data', 'ctmatch：存储的数据'],
  stored_heading: ['What this browser stores for this site', '浏览器为本站存储的内容'],
  stored_note: ['Files of the page and of models. Volumes, reports and results are never stored.', '仅含页面与模型文件；影像、报告与结果从不存储。'],
  stored_none: ['Nothing is stored.', '没有存储任何内容。'],
  stored_clear: ['Clear all', '全部清除'],
  stored_failed: ['Not everything could be removed. Close the other tabs of this site and try again.', '未能全部清除，请关闭本站其他标签页后重试。'],
  stored_back: ['Back to the page', '返回页面'],
};

/** @typedef {'en' | 'zh'} Language */

/** @type {Language} */
let language = globalThis.navigator?.language?.startsWith('zh') ? 'zh' : 'en';

export const currentLanguage = () => language;

/** The tag for `lang` and `Intl`. */
export const languageTag = () => (language === 'zh' ? 'zh-CN' : 'en');

/** @param {number} value @param {Intl.NumberFormatOptions} [options] */
export const number = (value, options) => new Intl.NumberFormat(languageTag(), options).format(value);

/**
 * @param {string} key
 * @param {Readonly<Record<string, unknown>>} [params]
 * @param {Language} [which]
 */
export function text(key, params = {}, which = language) {
  const pair = MESSAGES[key] ?? MESSAGES.UNKNOWN;
  return pair[which === 'zh' ? 1 : 0].replace(/\{(\w+)\}/g, (_, name) => {
    const value = params[name];
    if (value === undefined || value === null) return '?';
    if (Array.isArray(value)) return value.join(', ');
    // Large counts are grouped; what is text already stays.
    return typeof value === 'number' ? number(value, { maximumFractionDigits: 2 }) : MESSAGES[String(value)] ? text(String(value), {}, which) : String(value);
  });
}

/**
 * The sentence for an error: its code's, with the numbers of its detail.
 * @param {any} error
 */
export const errorText = (error) => text(MESSAGES[error?.code] ? error.code : 'UNKNOWN', error?.detail);

/** @param {string} rule */
export const ruleText = (rule) => (MESSAGES[`rule_${rule}`] ? text(`rule_${rule}`) : rule);

/** @param {string} place */
export function placeText(place) {
  const [, code] = place.match(/^extension (-?\d+)$/) ?? [];
  if (code) return text('place_extension', { code });
  const key = `place_${place.replaceAll(' ', '_')}`;
  return MESSAGES[key] ? text(key) : place;
}

/** Fills every `[data-text]`, `[data-label]`, `[data-placeholder]` below `root`. @param {ParentNode} root */
export function translate(root) {
  for (const element of root.querySelectorAll('[data-text]')) element.textContent = text(/** @type {HTMLElement} */ (element).dataset.text ?? '');
  for (const element of root.querySelectorAll('[data-label]')) element.setAttribute('aria-label', text(/** @type {HTMLElement} */ (element).dataset.label ?? ''));
  for (const element of root.querySelectorAll('[data-placeholder]')) element.setAttribute('placeholder', text(/** @type {HTMLElement} */ (element).dataset.placeholder ?? ''));
}

/** @param {Language} next */
export function setLanguage(next) {
  language = next;
  document.documentElement.lang = languageTag();
  document.title = text('title');
  translate(document);
}
