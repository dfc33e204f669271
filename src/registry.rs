//! The pattern by which identity sources and targets are listed.

/// Declares a list of kinds: one module, one line.
///
/// Yields the module declarations, the enum `Settings` (tagged by `type` in
/// configuration), `KINDS`, and `Settings::from_kind`, through which the
/// configuration reads a table once it knows its `type`. (Serde's own tagged
/// enums buffer the table, and errors would lose their place in the file.)
macro_rules! registry {
    ($(#[$doc:meta])* $($kind:literal => $variant:ident in $module:ident,)+) => {
        $(pub mod $module;)+

        /// The names of all kinds, as `type` has them in the configuration.
        pub const KINDS: &[&str] = &[$($kind),+];

        $(#[$doc])*
        #[allow(clippy::large_enum_variant, reason = "there are as many as there are tables")]
        #[derive(Clone, Debug, PartialEq, serde::Serialize, schemars::JsonSchema)]
        #[serde(tag = "type")]
        pub enum Settings {
            $(
                #[allow(missing_docs, reason = "the module documents it")]
                #[serde(rename = $kind)]
                $variant($module::Settings),
            )+
        }

        impl Settings {
            /// Reads the settings of this kind; `None` where there is no such kind.
            pub fn from_kind<'de, D: serde::Deserializer<'de>>(
                kind: &str,
                table: D,
            ) -> Option<Result<Self, D::Error>> {
                match kind {
                    $($kind => Some(serde::Deserialize::deserialize(table).map(Self::$variant)),)+
                    _ => None,
                }
            }

            /// The kind's name.
            pub fn kind(&self) -> &'static str {
                match self {
                    $(Self::$variant(_) => $kind,)+
                }
            }
        }
    };
}

pub(crate) use registry;
