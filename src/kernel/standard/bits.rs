//! Whole numbers as bits: `BitShift`, `BitwiseAnd`, `BitwiseOr`, `BitwiseXor`, `BitCast`.

use super::strided::{broadcast, zip};
use super::support::{Args, Built, Run, broadcast_fact, element_of, fact, first, like, one, op};
use crate::kernel::{BuildError, Node, RunContext};
use crate::tensor::{DataView, Element, ElementType, Tensor};

/// Calls the body with the elements of a type of whole numbers; any other type is an error.
macro_rules! whole_type {
    ($args:expr, $view:expr, $values:ident => $body:expr) => {
        match $view.data() {
            DataView::I8($values) => $body,
            DataView::I16($values) => $body,
            DataView::I32($values) => $body,
            DataView::I64($values) => $body,
            DataView::U8($values) => $body,
            DataView::U16($values) => $body,
            DataView::U32($values) => $body,
            DataView::U64($values) => $body,
            _ => Err($args.fail("whole numbers")),
        }
    };
}

/// The kernel of a node of this family, or [`BuildError::Unsupported`].
pub(super) fn build(name: &'static str, node: &Node<'_>) -> Built {
    macro_rules! bitwise {
        ($f:ident) => {
            pairs(name, |args, outputs, cx| {
                let a = args.get(0)?;
                whole_type!(args, a, v => two(args, v, outputs, cx, Whole::$f))
            })
        };
    }
    match name {
        "BitwiseAnd" => bitwise!(and),
        "BitwiseOr" => bitwise!(or),
        "BitwiseXor" => bitwise!(xor),
        "BitShift" => match node.attributes.string("direction")? {
            Some("LEFT") => bitwise!(left),
            Some("RIGHT") => bitwise!(right),
            other => {
                let found = other.unwrap_or("nothing");
                Err(BuildError::invalid(format!(
                    "attribute `direction`: expected LEFT or RIGHT, found {found}"
                )))
            }
        },
        "BitCast" => {
            let to =
                node.attributes.int("to")?.ok_or_else(|| BuildError::invalid("attribute `to` is missing"))?;
            let to = element_of(to)?;
            if to == ElementType::String {
                return Err(BuildError::Unsupported);
            }
            op(
                name,
                move |inputs| {
                    fact(inputs, 0)?;
                    one(to, like(inputs, 0))
                },
                move |args, outputs, _| reinterpret(args, to, outputs),
            )
        }
        _ => Err(BuildError::Unsupported),
    }
}

fn pairs<R>(name: &'static str, run: R) -> Built
where
    R: Fn(Args<'_, '_>, &mut [Tensor], &RunContext) -> Run + Send + Sync + 'static,
{
    op(name, |inputs| one(fact(inputs, 0)?.element, broadcast_fact(inputs, 0..2)?), run)
}

fn two<T: Element + Copy>(
    args: Args<'_, '_>,
    a: &[T],
    outputs: &mut [Tensor],
    cx: &RunContext,
    f: impl Fn(T, T) -> T,
) -> Run {
    let b = args.values::<T>(1)?;
    let (a_shape, b_shape) = (args.get(0)?.shape(), args.get(1)?.shape());
    let dims = broadcast(a_shape.dims(), b_shape.dims()).ok_or_else(|| args.fail("shapes that broadcast"))?;
    let to = cx.reset::<T>(first(args, outputs)?, &dims)?;
    zip((a, a_shape.dims()), (b, b_shape.dims()), &dims, to, f);
    Ok(())
}

/// What is done with bits. A shift by more than there are leaves nothing, or the sign; one by less
/// than none is one by an unsigned number that large.
trait Whole: Element + Copy {
    fn and(self, other: Self) -> Self;
    fn or(self, other: Self) -> Self;
    fn xor(self, other: Self) -> Self;
    fn left(self, by: Self) -> Self;
    fn right(self, by: Self) -> Self;
}

macro_rules! whole {
    ($($type:ty),*) => { $(
        impl Whole for $type {
            fn and(self, other: Self) -> Self { self & other }
            fn or(self, other: Self) -> Self { self | other }
            fn xor(self, other: Self) -> Self { self ^ other }
            fn left(self, by: Self) -> Self {
                u32::try_from(by).ok().and_then(|by| self.checked_shl(by)).unwrap_or(0)
            }
            #[allow(unused_comparisons, clippy::absurd_extreme_comparisons, reason = "for the unsigned types")]
            fn right(self, by: Self) -> Self {
                let gone = if self < 0 { !0 } else { 0 };
                u32::try_from(by).ok().and_then(|by| self.checked_shr(by)).unwrap_or(gone)
            }
        }
    )* };
}
whole!(i8, i16, i32, i64, u8, u16, u32, u64);

/// The same bytes as another type of the same size.
fn reinterpret(args: Args<'_, '_>, to: ElementType, outputs: &mut [Tensor]) -> Run {
    let input = args.get(0)?;
    let mut bytes = Vec::new();
    macro_rules! take {
        ($($variant:ident),*) => {
            match input.data() {
                $(DataView::$variant(v) => bytes.extend(v.iter().flat_map(|x| x.to_le_bytes())),)*
                DataView::Bool(v) => bytes.extend(v.iter().map(|x| u8::from(*x))),
                DataView::String(_) => return Err(args.fail("numbers")),
            }
        };
    }
    take!(F32, F64, I8, I16, I32, I64, U8, U16, U32, U64);
    let shape = input.shape();
    let output = first(args, outputs)?;
    macro_rules! give {
        ($($variant:ident $type:ty),*) => {
            match to {
                $(ElementType::$variant => {
                    if bytes.len() != shape.elements() * size_of::<$type>() {
                        return Err(args.fail("a type of the same size"));
                    }
                    let parts = bytes.chunks_exact(size_of::<$type>());
                    for (to, part) in output.reset::<$type>(shape).iter_mut().zip(parts) {
                        *to = part.try_into().map_or_else(|_| Default::default(), <$type>::from_le_bytes);
                    }
                })*
                ElementType::Bool => {
                    if bytes.len() != shape.elements() {
                        return Err(args.fail("a type of the same size"));
                    }
                    output.reset::<bool>(shape).iter_mut().zip(&bytes).for_each(|(to, b)| *to = *b != 0);
                }
                ElementType::String => return Err(args.fail("numbers")),
            }
        };
    }
    give!(F32 f32, F64 f64, I8 i8, I16 i16, I32 i32, I64 i64, U8 u8, U16 u16, U32 u32, U64 u64);
    Ok(())
}
