//! What a tensor can hold.

use std::any::Any;
use std::fmt;

use super::undecoded::Undecoded;

/// The type of a tensor's elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ElementType {
    /// 32-bit float.
    F32,
    /// 64-bit float.
    F64,
    /// 8-bit signed integer.
    I8,
    /// 16-bit signed integer.
    I16,
    /// 32-bit signed integer.
    I32,
    /// 64-bit signed integer.
    I64,
    /// 8-bit unsigned integer.
    U8,
    /// 16-bit unsigned integer.
    U16,
    /// 32-bit unsigned integer.
    U32,
    /// 64-bit unsigned integer.
    U64,
    /// Truth value.
    Bool,
    /// UTF-8 text.
    String,
}

impl ElementType {
    /// The name that error messages and `check` print: `f32`, `i64`, `string`, ..
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F64 => "f64",
            Self::I8 => "i8",
            Self::I16 => "i16",
            Self::I32 => "i32",
            Self::I64 => "i64",
            Self::U8 => "u8",
            Self::U16 => "u16",
            Self::U32 => "u32",
            Self::U64 => "u64",
            Self::Bool => "bool",
            Self::String => "string",
        }
    }

    /// True for `f32` and `f64`.
    #[must_use]
    pub const fn is_float(self) -> bool {
        matches!(self, Self::F32 | Self::F64)
    }
}

impl fmt::Display for ElementType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A type that a tensor can hold. Sealed: the twelve types of [`ElementType`].
pub trait Element: Clone + Default + fmt::Debug + PartialEq + Send + Sync + sealed::Sealed + 'static {
    /// The tag of this type.
    const TYPE: ElementType;
    #[doc(hidden)]
    fn wrap(values: Vec<Self>) -> Data;
    #[doc(hidden)]
    fn peek(data: &Data) -> Option<&Vec<Self>>;
    #[doc(hidden)]
    fn peek_mut(data: &mut Data) -> Option<&mut Vec<Self>>;
    #[doc(hidden)]
    fn view(values: &[Self]) -> DataView<'_>;
    #[doc(hidden)]
    fn peek_view<'a>(data: &DataView<'a>) -> Option<&'a [Self]>;
}

mod sealed {
    pub trait Sealed {}
}

macro_rules! elements {
    ($($variant:ident $type:ty),* $(,)?) => {
        /// Owned elements. An implementation detail that [`Element`] has to name.
        #[doc(hidden)]
        #[derive(Clone, Debug)]
        #[allow(missing_docs, clippy::exhaustive_enums)]
        pub enum Data {
            $($variant(Vec<$type>),)*
            /// Many `f32` of a file.
            Undecoded(Box<Undecoded>),
        }

        /// Borrowed elements, by type.
        #[derive(Clone, Copy, Debug, PartialEq)]
        #[non_exhaustive]
        pub enum DataView<'a> {
            $(#[doc = concat!("Elements of type `", stringify!($type), "`.")] $variant(&'a [$type])),*
        }

        impl Data {
            pub(super) fn element_type(&self) -> ElementType {
                match self {
                    $(Self::$variant(_) => ElementType::$variant,)*
                    Self::Undecoded(_) => ElementType::F32,
                }
            }
            pub(super) fn as_view(&self) -> DataView<'_> {
                match self {
                    $(Self::$variant(v) => DataView::$variant(v),)*
                    Self::Undecoded(v) => DataView::F32(v.values()),
                }
            }
            /// Adds elements, which have to be of the same type.
            pub(super) fn extend(&mut self, more: DataView<'_>) {
                self.decode();
                match (self, more) {
                    $((Self::$variant(v), DataView::$variant(more)) => v.extend_from_slice(more),)*
                    _ => debug_assert!(false, "elements of another type"),
                }
            }
            pub(super) fn clear(&mut self) {
                match self {
                    $(Self::$variant(v) => v.clear(),)*
                    Self::Undecoded(_) => *self = Self::F32(Vec::new()),
                }
            }
            pub(super) fn decode(&mut self) {
                if let Self::Undecoded(v) = self {
                    *self = Self::F32(std::mem::take(&mut **v).into_values());
                }
            }
        }

        impl PartialEq for Data {
            fn eq(&self, other: &Self) -> bool {
                self.as_view() == other.as_view()
            }
        }

        impl<'a> DataView<'a> {
            /// The type of the elements.
            #[must_use]
            pub const fn element_type(&self) -> ElementType {
                match self { $(Self::$variant(_) => ElementType::$variant),* }
            }
            /// The number of elements.
            #[must_use]
            pub const fn len(&self) -> usize {
                match self { $(Self::$variant(v) => v.len()),* }
            }
            /// True where there is no element.
            #[must_use]
            pub const fn is_empty(&self) -> bool {
                self.len() == 0
            }
            pub(super) fn to_data(self) -> Data {
                match self { $(Self::$variant(v) => Data::$variant(v.to_vec())),* }
            }
            pub(super) fn slice(self, range: std::ops::Range<usize>) -> Option<DataView<'a>> {
                Some(match self { $(Self::$variant(v) => DataView::$variant(v.get(range)?)),* })
            }
        }

        $(
            impl sealed::Sealed for $type {}
            impl Element for $type {
                const TYPE: ElementType = ElementType::$variant;
                fn wrap(values: Vec<Self>) -> Data { Data::$variant(values) }
                fn peek(data: &Data) -> Option<&Vec<Self>> {
                    match data {
                        Data::$variant(v) => Some(v),
                        Data::Undecoded(v) if Self::TYPE == ElementType::F32 => {
                            (v.values() as &dyn Any).downcast_ref()
                        }
                        _ => None,
                    }
                }
                fn peek_mut(data: &mut Data) -> Option<&mut Vec<Self>> {
                    data.decode();
                    match data { Data::$variant(v) => Some(v), _ => None }
                }
                fn view(values: &[Self]) -> DataView<'_> { DataView::$variant(values) }
                fn peek_view<'a>(data: &DataView<'a>) -> Option<&'a [Self]> {
                    match data { DataView::$variant(v) => Some(v), _ => None }
                }
            }
        )*
    };
}

elements! {
    F32 f32, F64 f64, I8 i8, I16 i16, I32 i32, I64 i64,
    U8 u8, U16 u16, U32 u32, U64 u64, Bool bool, String String,
}
