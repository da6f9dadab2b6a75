//! A restricted unpickler for the `data.pkl` of a PyTorch checkpoint: it yields names and tensor descriptions.
//!
//! A pickle is a program. This reader runs none of it: it knows the opcodes that a state dict needs and five kinds of
//! globals (`collections.OrderedDict`, `torch.<T>Storage`, `torch._utils._rebuild_tensor_v2`,
//! `torch._utils._rebuild_parameter`), and refuses everything else by name. Protocols 2 to 5. Values live in an arena
//! and nothing recurses, so nesting cannot exhaust the stack; every value costs at least one input byte, so the input
//! limit bounds memory. Format of the tensors: CTCLIP.md section 8; opcodes: CPython's `pickletools`.

use crate::error::Error;
use crate::error::Result;
use crate::weights::dtype::Dtype;
use std::collections::BTreeMap;

/// Bytes of a `data.pkl` that are accepted; the full-size CT-CLIP state dict needs about 60 kB.
pub(crate) const MAX_PICKLE: u64 = 16 << 20;
const MAX_VALUES: usize = 500_000;
const MAX_TENSORS: usize = 100_000;
const MAX_RANK: usize = 8;
const MAX_NAME: usize = 512;
const MAX_STORAGE_KEY: usize = 64;
/// Wrapper dicts around the state dict that are looked through.
const MAX_WRAPPERS: usize = 4;

/// One tensor of the state dict, still in units of its storage.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct TensorRef {
    pub(crate) dtype: Dtype,
    /// entry `<stem>/data/<key>` of the archive
    pub(crate) key: String,
    /// elements of the storage
    pub(crate) storage_len: u64,
    /// elements before the first one of this tensor
    pub(crate) offset: u64,
    pub(crate) shape: Vec<usize>,
    /// elements
    pub(crate) strides: Vec<usize>,
}

type Id = usize;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Global {
    OrderedDict,
    RebuildTensor,
    RebuildParameter,
    Storage(Dtype),
}

#[derive(Debug)]
enum Value {
    /// None, floats and bytes: they occur beside the state dict and are never used.
    Opaque,
    /// Booleans are integers here, as in Python.
    Int(i64),
    Str(String),
    /// Tuples and lists.
    Sequence(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    Global(Global),
    Storage {
        dtype: Dtype,
        key: String,
        len: u64,
    },
    Tensor {
        storage: Id,
        offset: u64,
        shape: Vec<usize>,
        strides: Vec<usize>,
    },
}

fn bad(what: impl Into<String>) -> Error {
    Error::Checkpoint(format!("the pickle of the checkpoint is not readable: {}", what.into()))
}

/// Names and tensors of the state dict in `bytes`, in file order; wrapper dicts `{"model": ..}` and
/// `{"state_dict": ..}` are looked through, everything that is not a tensor is left out.
///
/// # Errors
/// [`Error::Checkpoint`] for a global or opcode outside the list above, malformed input, or no state dict.
pub(crate) fn state_dict(bytes: &[u8]) -> Result<Vec<(String, TensorRef)>> {
    if bytes.len() as u64 > MAX_PICKLE {
        return Err(bad(format!("it may have {MAX_PICKLE} bytes, found {}", bytes.len())));
    }
    let mut machine = Machine {
        input: bytes,
        at: 0,
        values: Vec::new(),
        stack: Vec::new(),
        marks: Vec::new(),
        memo: BTreeMap::new(),
    };
    let root = machine.run()?;
    machine.tensors(root)
}

struct Machine<'a> {
    input: &'a [u8],
    at: usize,
    values: Vec<Value>,
    stack: Vec<Id>,
    /// stack heights
    marks: Vec<usize>,
    memo: BTreeMap<u32, Id>,
}

impl Machine<'_> {
    fn run(&mut self) -> Result<Id> {
        loop {
            let opcode = self.byte()?;
            match opcode {
                b'.' => return self.pop(),
                0x80 => self.protocol()?,
                0x95 => {
                    self.take_array::<8>()?; // FRAME: a hint for buffered readers
                }
                b'(' => self.marks.push(self.stack.len()),
                b'0' => {
                    self.pop()?;
                }
                b'1' => {
                    self.pop_to_mark()?;
                }
                b'2' => {
                    let top = *self.stack.last().ok_or_else(|| bad("its stack is empty"))?;
                    self.stack.push(top);
                }
                b'N' => self.push(Value::Opaque)?,
                b'G' => {
                    self.take_array::<8>()?;
                    self.push(Value::Opaque)?;
                }
                0x88 => self.push(Value::Int(1))?,
                0x89 => self.push(Value::Int(0))?,
                b'J' | b'K' | b'M' | 0x8a => {
                    let value = self.integer(opcode)?;
                    self.push(Value::Int(value))?;
                }
                b'X' | 0x8c | 0x8d | b'T' | b'U' => {
                    let text = self.string(opcode)?;
                    self.push(Value::Str(text))?;
                }
                b'C' | b'B' | 0x8e => {
                    let len = self.length(opcode)?;
                    self.take(len)?;
                    self.push(Value::Opaque)?;
                }
                b')' | b']' => self.push(Value::Sequence(Vec::new()))?,
                b't' | b'l' => {
                    let items = self.pop_to_mark()?;
                    self.push(Value::Sequence(items))?;
                }
                0x85..=0x87 => {
                    let items = self.pop_many(usize::from(opcode - 0x84))?;
                    self.push(Value::Sequence(items))?;
                }
                b'a' => {
                    let item = self.pop()?;
                    self.append(&[item])?;
                }
                b'e' => {
                    let items = self.pop_to_mark()?;
                    self.append(&items)?;
                }
                b'}' => self.push(Value::Dict(Vec::new()))?,
                b'd' => {
                    let items = self.pop_to_mark()?;
                    self.push(Value::Dict(Vec::new()))?;
                    self.set_items(&items)?;
                }
                b's' => {
                    let items = self.pop_many(2)?;
                    self.set_items(&items)?;
                }
                b'u' => {
                    let items = self.pop_to_mark()?;
                    self.set_items(&items)?;
                }
                b'q' | b'r' | 0x94 => self.memoize(opcode)?,
                b'h' | b'j' => self.recall(opcode)?,
                b'c' => {
                    let (module, name) = (self.line()?, self.line()?);
                    let global = resolve(&module, &name)?;
                    self.push(Value::Global(global))?;
                }
                0x93 => {
                    let (name, module) = (self.pop_text()?, self.pop_text()?);
                    let global = resolve(&module, &name)?;
                    self.push(Value::Global(global))?;
                }
                b'Q' => self.storage()?,
                b'R' => self.reduce()?,
                b'b' => self.build()?,
                other => return Err(bad(format!("opcode 0x{other:02x} is not one a state dict needs"))),
            }
        }
    }

    fn protocol(&mut self) -> Result<()> {
        match self.byte()? {
            2..=5 => Ok(()),
            other => Err(bad(format!("protocol 2 to 5 is needed, found {other}"))),
        }
    }

    fn take(&mut self, len: usize) -> Result<&[u8]> {
        let end =
            self.at.checked_add(len).filter(|&end| end <= self.input.len()).ok_or_else(|| bad("it ends early"))?;
        let taken = &self.input[self.at..end];
        self.at = end;
        Ok(taken)
    }

    fn take_array<const N: usize>(&mut self) -> Result<[u8; N]> {
        self.take(N)?.try_into().map_err(|_| bad("it ends early"))
    }

    fn byte(&mut self) -> Result<u8> {
        self.take_array::<1>().map(|[byte]| byte)
    }

    fn line(&mut self) -> Result<String> {
        let len = self.input[self.at..].iter().position(|&byte| byte == b'\n').ok_or_else(|| bad("it ends early"))?;
        let line = String::from_utf8_lossy(self.take(len)?).into_owned();
        self.byte()?;
        Ok(line)
    }

    fn integer(&mut self, opcode: u8) -> Result<i64> {
        Ok(match opcode {
            b'J' => i32::from_le_bytes(self.take_array()?).into(),
            b'K' => self.byte()?.into(),
            b'M' => u16::from_le_bytes(self.take_array()?).into(),
            _ => {
                let len = usize::from(self.byte()?);
                if len > 8 {
                    return Err(bad(format!("an integer may have 8 bytes, found {len}")));
                }
                let bytes = self.take(len)?;
                let negative = bytes.last().is_some_and(|&top| top & 0x80 != 0);
                let mut wide = [if negative { 0xff } else { 0 }; 8];
                wide[..len].copy_from_slice(bytes);
                i64::from_le_bytes(wide)
            }
        })
    }

    /// Length prefix of a string or bytes opcode.
    fn length(&mut self, opcode: u8) -> Result<usize> {
        let len = match opcode {
            0x8c | b'U' | b'C' => self.byte()?.into(),
            b'X' | b'T' | b'B' => u32::from_le_bytes(self.take_array()?).into(),
            _ => u64::from_le_bytes(self.take_array()?),
        };
        usize::try_from(len).map_err(|_| bad("it ends early"))
    }

    fn string(&mut self, opcode: u8) -> Result<String> {
        let len = self.length(opcode)?;
        let bytes = self.take(len)?;
        std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| bad("a string is not UTF-8"))
    }

    fn push(&mut self, value: Value) -> Result<()> {
        if self.values.len() >= MAX_VALUES {
            return Err(bad(format!("it may hold {MAX_VALUES} values")));
        }
        self.stack.push(self.values.len());
        self.values.push(value);
        Ok(())
    }

    fn pop(&mut self) -> Result<Id> {
        // A value below the last mark belongs to an enclosing construct.
        if self.marks.last().is_some_and(|&mark| self.stack.len() <= mark) {
            return Err(bad("its stack is empty"));
        }
        self.stack.pop().ok_or_else(|| bad("its stack is empty"))
    }

    fn pop_many(&mut self, count: usize) -> Result<Vec<Id>> {
        let mut items = (0..count).map(|_| self.pop()).collect::<Result<Vec<_>>>()?;
        items.reverse();
        Ok(items)
    }

    fn pop_to_mark(&mut self) -> Result<Vec<Id>> {
        let mark = self.marks.pop().filter(|&mark| mark <= self.stack.len()).ok_or_else(|| bad("a mark is missing"))?;
        Ok(self.stack.split_off(mark))
    }

    fn pop_text(&mut self) -> Result<String> {
        let id = self.pop()?;
        match &self.values[id] {
            Value::Str(text) => Ok(text.clone()),
            _ => Err(bad("a global's name must be a string")),
        }
    }

    fn top(&mut self) -> Result<&mut Value> {
        let top = *self.stack.last().ok_or_else(|| bad("its stack is empty"))?;
        Ok(&mut self.values[top])
    }

    fn append(&mut self, items: &[Id]) -> Result<()> {
        match self.top()? {
            Value::Sequence(list) => list.extend_from_slice(items),
            _ => return Err(bad("an append needs a list")),
        }
        Ok(())
    }

    fn set_items(&mut self, items: &[Id]) -> Result<()> {
        let (pairs, rest) = items.as_chunks::<2>();
        match self.top()? {
            Value::Dict(dict) if rest.is_empty() => dict.extend(pairs.iter().map(|&[key, value]| (key, value))),
            Value::Dict(_) => return Err(bad("a dict needs pairs")),
            _ => return Err(bad("an assignment needs a dict")),
        }
        Ok(())
    }

    fn memoize(&mut self, opcode: u8) -> Result<()> {
        let slot = match opcode {
            b'q' => self.byte()?.into(),
            b'r' => u32::from_le_bytes(self.take_array()?),
            _ => self.memo.len() as u32,
        };
        let top = *self.stack.last().ok_or_else(|| bad("its stack is empty"))?;
        self.memo.insert(slot, top);
        Ok(())
    }

    fn recall(&mut self, opcode: u8) -> Result<()> {
        let slot = if opcode == b'h' { self.byte()?.into() } else { u32::from_le_bytes(self.take_array()?) };
        let id = *self.memo.get(&slot).ok_or_else(|| bad("a memo entry is missing"))?;
        self.stack.push(id);
        Ok(())
    }

    fn sequence(&self, id: Id) -> Result<&[Id]> {
        match &self.values[id] {
            Value::Sequence(items) => Ok(items),
            _ => Err(bad("a tuple was expected")),
        }
    }

    fn unsigned(&self, id: Id) -> Result<u64> {
        match self.values[id] {
            Value::Int(value) => u64::try_from(value).map_err(|_| bad("a size or stride is negative")),
            _ => Err(bad("an integer was expected")),
        }
    }

    fn sizes(&self, id: Id) -> Result<Vec<usize>> {
        let items = self.sequence(id)?;
        if items.len() > MAX_RANK {
            return Err(bad(format!("a tensor may have {MAX_RANK} dimensions, found {}", items.len())));
        }
        items
            .iter()
            .map(|&item| usize::try_from(self.unsigned(item)?).map_err(|_| bad("a size or stride is too large")))
            .collect()
    }

    /// `('storage', torch.<T>Storage, key, device, element count)`; the device is ignored.
    fn storage(&mut self) -> Result<()> {
        let id = self.pop()?;
        let &[tag, class, key, _device, len] = self.sequence(id)? else {
            return Err(bad("a storage needs five fields"));
        };
        let value = match (&self.values[tag], &self.values[class], &self.values[key]) {
            (Value::Str(tag), &Value::Global(Global::Storage(dtype)), Value::Str(key))
                if tag == "storage" && key.len() <= MAX_STORAGE_KEY =>
            {
                Value::Storage { dtype, key: key.clone(), len: self.unsigned(len)? }
            }
            _ => return Err(bad("a persistent id is not a storage")),
        };
        self.push(value)
    }

    fn reduce(&mut self) -> Result<()> {
        let (args, callee) = (self.pop()?, self.pop()?);
        let Value::Global(global) = self.values[callee] else {
            return Err(bad("a call needs a global"));
        };
        let args = self.sequence(args)?;
        match (global, args) {
            (Global::OrderedDict, []) => self.push(Value::Dict(Vec::new())),
            // data, requires_grad, backward_hooks
            (Global::RebuildParameter, &[tensor, _, _]) if matches!(self.values[tensor], Value::Tensor { .. }) => {
                self.stack.push(tensor);
                Ok(())
            }
            // storage, storage_offset, size, stride, requires_grad, backward_hooks, [metadata]
            (
                Global::RebuildTensor,
                &[storage, offset, size, stride, _, _] | &[storage, offset, size, stride, _, _, _],
            ) if matches!(self.values[storage], Value::Storage { .. }) => {
                let (shape, strides) = (self.sizes(size)?, self.sizes(stride)?);
                if shape.len() != strides.len() {
                    return Err(bad("a tensor has a different number of sizes and strides"));
                }
                let offset = self.unsigned(offset)?;
                self.push(Value::Tensor { storage, offset, shape, strides })
            }
            _ => Err(bad("a call has other arguments than a state dict needs")),
        }
    }

    /// Sets attributes of an OrderedDict, in practice `_metadata` (CTCLIP.md section 8); they are dropped.
    fn build(&mut self) -> Result<()> {
        self.pop()?;
        match self.top()? {
            Value::Dict(_) => Ok(()),
            _ => Err(bad("only an OrderedDict may have attributes")),
        }
    }

    fn entry(&self, dict: &[(Id, Id)], wanted: &str) -> Option<Id> {
        dict.iter()
            .rev()
            .find(|&&(key, _)| matches!(&self.values[key], Value::Str(name) if name == wanted))
            .map(|&(_, value)| value)
    }

    fn tensors(&self, root: Id) -> Result<Vec<(String, TensorRef)>> {
        let mut id = root;
        for _ in 0..=MAX_WRAPPERS {
            let Value::Dict(dict) = &self.values[id] else { break };
            let inner = ["model", "state_dict"]
                .iter()
                .filter_map(|name| self.entry(dict, name))
                .find(|&value| matches!(self.values[value], Value::Dict(_)));
            if let Some(inner) = inner {
                id = inner;
                continue;
            }
            let found = self.collect(dict)?;
            if !found.is_empty() {
                return Ok(found);
            }
            break;
        }
        Err(Error::Checkpoint(
            "no state dict found: expected a dict of names and tensors, or one under `model` or `state_dict`".into(),
        ))
    }

    fn collect(&self, dict: &[(Id, Id)]) -> Result<Vec<(String, TensorRef)>> {
        let mut found = Vec::new();
        for &(key, value) in dict {
            let (Value::Str(name), Value::Tensor { storage, offset, shape, strides }) =
                (&self.values[key], &self.values[value])
            else {
                continue;
            };
            let Value::Storage { dtype, key, len } = &self.values[*storage] else { continue };
            check_name(name)?;
            if found.len() >= MAX_TENSORS {
                return Err(bad(format!("it may name {MAX_TENSORS} tensors")));
            }
            found.push((
                name.clone(),
                TensorRef {
                    dtype: *dtype,
                    key: key.clone(),
                    storage_len: *len,
                    offset: *offset,
                    shape: shape.clone(),
                    strides: strides.clone(),
                },
            ));
        }
        Ok(found)
    }
}

/// Tensor names appear in messages, so they have to be short and printable.
pub(crate) fn check_name(name: &str) -> Result<()> {
    if name.is_empty() || name.len() > MAX_NAME || name.chars().any(char::is_control) {
        return Err(Error::Checkpoint(format!(
            "a tensor name must be 1 to {MAX_NAME} printable bytes, found {} bytes",
            name.len()
        )));
    }
    Ok(())
}

fn resolve(module: &str, name: &str) -> Result<Global> {
    match (module, name) {
        ("collections", "OrderedDict") => return Ok(Global::OrderedDict),
        ("torch._utils", "_rebuild_tensor_v2") => return Ok(Global::RebuildTensor),
        ("torch._utils", "_rebuild_parameter") => return Ok(Global::RebuildParameter),
        ("torch", class) => {
            if let Some(dtype) = Dtype::from_torch_storage(class) {
                return Ok(Global::Storage(dtype));
            }
        }
        _ => {}
    }
    // The name is what the reader of the message needs; it is cut and cleaned because the file chose it.
    let shown =
        |text: &str| -> String { text.chars().take(64).map(|c| if c.is_ascii_graphic() { c } else { '?' }).collect() };
    Err(Error::Checkpoint(format!(
        "the pickle asks for `{}.{}`, which a state dict does not need: nothing was run; save only the state dict",
        shown(module),
        shown(name)
    )))
}
