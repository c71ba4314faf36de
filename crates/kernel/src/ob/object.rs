//! Reference counts: an object lives as long as there is a reference or a handle.
//!
//! Pages: *ObfReferenceObject function*, *ObDereferenceObject macro*, *ObReferenceObjectByPointer function*. Drivers see
//! no object header. Above PASSIVE_LEVEL the last dereference deletes on a thread of the system's, as Windows does.

use abi::{DriverPtr, NtStatus};
use engine::Flow;

use super::names::Target;
use super::{account, object_type};
use crate::cx::{Cx, Kernel};
use crate::ke;
use crate::verdict::Verdict;

/// What kind of object.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[allow(missing_docs, reason = "the names are Windows's own")]
pub enum Kind {
    Callback,
    Device,
    Directory,
    Driver,
    Event,
    File,
    IoCompletion,
    Key,
    Mutant,
    Process,
    Section,
    Semaphore,
    SymbolicLink,
    Thread,
    Timer,
    Token,
    WmiGuid,
}

/// What the owner of a kind of object does when handles are closed and when the object is deleted.
pub struct Procedures {
    /// A handle was closed: object, process, handles that this process has left, handles left in all.
    pub close: fn(&mut Cx<'_>, u64, u64, u32, u32) -> Flow<()>,
    /// The last reference is gone: frees the body. At PASSIVE_LEVEL.
    pub delete: fn(&mut Cx<'_>, u64) -> Flow<()>,
}

impl Procedures {
    /// For [`Procedures::close`]: nothing to do.
    ///
    /// # Errors
    /// None.
    pub fn nothing(_: &mut Cx<'_>, _: u64, _: u64, _: u32, _: u32) -> Flow<()> {
        Ok(())
    }

    /// For [`Procedures::delete`]: the body is one block of pool.
    ///
    /// # Errors
    /// As freeing it.
    pub fn free(cx: &mut Cx<'_>, body: u64) -> Flow<()> {
        crate::mm::pool::free(cx, DriverPtr::<()>::new(body))
    }
}

/// What the object manager knows about an object.
pub struct Object {
    /// Its kind.
    pub kind: Kind,
    /// References, handles included.
    pub references: i64,
    /// Open handles.
    pub handles: u32,
    /// Its name, if it has one.
    pub path: Option<String>,
    pub(crate) procedures: &'static Procedures,
}

/// Makes the body at `body` an object with one reference, named `path` if that is not empty.
///
/// # Errors
/// (inner) the name is bad or taken; the body stays the caller's.
pub fn create(
    cx: &mut Cx<'_>,
    body: u64,
    kind: Kind,
    path: &str,
    procedures: &'static Procedures,
) -> Result<(), NtStatus> {
    cx.with(|k| {
        let path = if path.is_empty() { None } else { Some(k.ob.names.insert(path, Target::Object(body))?) };
        k.ob.objects.insert(body, Object { kind, references: 1, handles: 0, path, procedures });
        Ok(())
    })
}

/// Takes the object's name away, so that it cannot be found any more.
pub fn make_temporary(cx: &mut Cx<'_>, body: u64) {
    cx.with(|k| {
        if let Some(path) = k.ob.objects.get_mut(body).and_then(|object| object.path.take()) {
            k.ob.names.remove(&path);
        }
    });
}

/// The object of this kind that has this name.
///
/// # Errors
/// There is nothing of this name: as [`super::names::Names::resolve`]; (inner) something else has it, or the name goes on behind the
/// object, in which there is nothing that could be opened.
pub(crate) fn named(cx: &mut Cx<'_>, name: &str, wanted: Kind) -> Result<Result<u64, NtStatus>, NtStatus> {
    let found = cx.with(|k| k.ob.names.resolve(name))?;
    Ok(match found.target {
        Target::Object(body) if kind(cx, body) == Some(wanted) => {
            if found.rest.is_empty() {
                Ok(body)
            } else {
                Err(NtStatus::OBJECT_PATH_NOT_FOUND)
            }
        }
        _ => Err(NtStatus::OBJECT_TYPE_MISMATCH),
    })
}

/// The kind of the object at `body`, if there is one.
pub fn kind(cx: &mut Cx<'_>, body: u64) -> Option<Kind> {
    cx.with(|k| k.ob.objects.get(body).map(|object| object.kind))
}

/// `ObfReferenceObject`: one reference more; returns how many there are.
///
/// # Errors
/// A verdict if there is no object.
pub fn reference<T>(cx: &mut Cx<'_>, body: DriverPtr<T>) -> Flow<u64> {
    let count = cx.with(|k| {
        let object = k.ob.objects.get_mut(body.address)?;
        object.references += 1;
        Some(object.references)
    });
    match count {
        Some(count) => Ok(count.cast_unsigned()),
        None => Err(not_an_object(cx, body.address, "ObReferenceObject", 1)),
    }
}

/// `ObfDereferenceObject`: one reference less; with the last one the object goes. Returns how many are left.
///
/// # Errors
/// A verdict if there is no object (any more); the errors of deleting it.
pub fn dereference<T>(cx: &mut Cx<'_>, body: DriverPtr<T>) -> Flow<u64> {
    let left = cx.with(|k| {
        let object = k.ob.objects.get_mut(body.address)?;
        object.references -= 1;
        let (left, handles) = (object.references, object.handles);
        (left >= i64::from(handles)).then_some(left)
    });
    match left {
        None => Err(not_an_object(cx, body.address, "ObDereferenceObject", -1)),
        Some(0) => delete(cx, body.address).map(|()| 0),
        Some(left) => Ok(left.cast_unsigned()),
    }
}

/// One reference less, if that is neither the last nor one of an open handle's: true. False: nothing is done, and the caller calls
/// [`dereference`], which reports what is wrong.
#[inline]
pub(crate) fn dereference_at_hint(k: &mut Kernel, number: u32, body: u64) -> bool {
    let Some(object) = k.ob.objects.get_mut_at_hint(number, body) else { return false };
    let plain = object.references > i64::from(object.handles).max(1);
    object.references -= i64::from(plain);
    plain
}

#[cold]
pub(crate) fn not_an_object(cx: &mut Cx<'_>, body: u64, ddi: &str, change: i64) -> engine::Leave {
    let known = cx.with(|k| k.ob.objects.get(body).map(|object| (object.kind, object.handles)));
    let message = match known {
        Some((kind, handles)) => format!(
            "{ddi} on the {kind:?} object {body:#x}, of whose references only those of its {handles} open handles are left"
        ),
        None => format!("{ddi} on {body:#x}, which is no object: its last reference may be gone already"),
    };
    cx.stop(Verdict::error("object-reference", message).bug_check(0x18, [0, body, 2, change.cast_unsigned()]))
}

fn delete(cx: &mut Cx<'_>, body: u64) -> Flow<()> {
    make_temporary(cx, body);
    let Some(object) = cx.with(|k| k.ob.objects.remove(body)) else {
        return Ok(());
    };
    let procedure = object.procedures.delete;
    if ke::irql::current(cx) == 0 {
        return procedure(cx, body);
    }
    ke::thread::spawn(cx, "object deletion", Box::new(move |cx| procedure(cx, body))).map(|_| ())
}

/// `ObReferenceObjectByPointer`: a reference, if the object is of the type asked for; the kernel's own callers (`KernelMode`) may ask
/// with any type, but for symbolic links.
///
/// # Errors
/// A verdict if there is no object.
pub fn reference_by_pointer(
    cx: &mut Cx<'_>,
    body: DriverPtr<()>,
    _desired_access: u32,
    object_type: DriverPtr<()>,
    access_mode: u8,
) -> Flow<NtStatus> {
    let found = kind(cx, body.address);
    let is_it = !object_type.is_null() && object_type::kind(object_type.address) == found;
    if found.is_some() && !is_it && access_mode != 0 {
        return Ok(NtStatus::OBJECT_TYPE_MISMATCH);
    }
    ddi::reference(cx, body)?;
    Ok(NtStatus::SUCCESS)
}

/// `ObReferenceObjectByPointerWithTag`.
///
/// # Errors
/// As [`reference_by_pointer`].
pub fn reference_by_pointer_with_tag(
    cx: &mut Cx<'_>,
    body: DriverPtr<()>,
    desired_access: u32,
    object_type: DriverPtr<()>,
    access_mode: u8,
    _tag: u32,
) -> Flow<NtStatus> {
    reference_by_pointer(cx, body, desired_access, object_type, access_mode)
}

/// `ObfReferenceObject` with its tag, which only a debugger would show.
///
/// # Errors
/// As [`reference()`].
pub fn reference_with_tag(cx: &mut Cx<'_>, body: DriverPtr<()>, _tag: u32) -> Flow<u64> {
    ddi::reference(cx, body)
}

/// `ObfDereferenceObjectWithTag`.
///
/// # Errors
/// As [`dereference`].
pub fn dereference_with_tag(cx: &mut Cx<'_>, body: DriverPtr<()>, _tag: u32) -> Flow<u64> {
    ddi::dereference(cx, body)
}

/// `ObDereferenceObjectDeferDelete`: as [`dereference`], but what the last one deletes, a system thread deletes.
///
/// # Errors
/// As [`dereference`].
pub fn dereference_defer_delete(cx: &mut Cx<'_>, body: DriverPtr<()>) -> Flow<()> {
    account::given_back(cx, body.address);
    let last = cx.with(|k| k.ob.objects.get(body.address).is_some_and(|object| object.references == 1));
    if last {
        let work = Box::new(move |cx: &mut Cx<'_>| dereference(cx, body).map(|_| ()));
        return ke::thread::spawn(cx, "object deletion", work).map(|_| ());
    }
    dereference(cx, body).map(|_| ())
}

/// `ObDereferenceObjectDeferDeleteWithTag`; the tag is for debuggers.
///
/// # Errors
/// As [`dereference`].
pub fn dereference_defer_delete_with_tag(cx: &mut Cx<'_>, body: DriverPtr<()>, _tag: u32) -> Flow<()> {
    dereference_defer_delete(cx, body)
}

/// `ObReferenceObjectSafe`: false, and no reference, if its last one is gone already.
///
/// # Errors
/// None of its own.
pub fn reference_safe(cx: &mut Cx<'_>, body: DriverPtr<()>) -> Flow<bool> {
    let lives = cx.with(|k| k.ob.objects.get(body.address).is_some_and(|object| object.references > 0));
    if lives {
        ddi::reference(cx, body)?;
    }
    Ok(lives)
}

/// The services by the names of the export table.
pub mod ddi {
    use super::{Cx, DriverPtr, Flow, account};

    /// `ObfReferenceObject`.
    ///
    /// # Errors
    /// As [`super::reference`].
    pub fn reference(cx: &mut Cx<'_>, body: DriverPtr<()>) -> Flow<u64> {
        account::taken(cx, body.address);
        super::reference(cx, body)
    }

    /// `ObfDereferenceObject`.
    ///
    /// # Errors
    /// As [`super::dereference`].
    pub fn dereference(cx: &mut Cx<'_>, body: DriverPtr<()>) -> Flow<u64> {
        account::given_back(cx, body.address);
        super::dereference(cx, body)
    }
}
