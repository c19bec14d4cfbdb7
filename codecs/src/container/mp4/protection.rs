//! What a file says about the encryption of its samples (ISO/IEC 23001-7): read only to be refused where it is damaged.
//!
//! Samples are delivered as they are; decryption parses the same boxes in a later issue.

use portcullis_engine::{Error, Result};

use super::data::{Data, FourCc, name};

/// Protection schemes that are known to exist; another one cannot be told from damage.
const SCHEMES: [&FourCc; 8] = [
    b"cenc", b"cens", b"cbc1", b"cbcs", b"piff", b"itun", b"odkm", b"adkm",
];

/// PIFF's sample encryption box.
const PIFF_SENC: [u8; 16] = [
    0xa2, 0x39, 0x4f, 0x52, 0x5a, 0x9b, 0x4f, 0x14, 0xa2, 0x44, 0x6c, 0x42, 0x7c, 0x64, 0x8d, 0xf4,
];
/// PIFF's track encryption box.
const PIFF_TENC: [u8; 16] = [
    0x89, 0x74, 0xdb, 0xce, 0x7b, 0xe7, 0x4c, 0x51, 0x84, 0xf9, 0x71, 0x48, 0xf9, 0x88, 0x25, 0x54,
];

/// How the samples of one sample description are protected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Protection {
    /// The format of the samples without protection.
    pub(super) original: Option<FourCc>,
    /// The scheme's four characters.
    pub(super) scheme: Option<FourCc>,
    /// Bytes of each sample's initialisation vector; 0 where it is constant.
    pub(super) iv_size: u8,
    /// The key that samples are encrypted with unless a sample group says otherwise.
    pub(super) key_id: Option<[u8; 16]>,
}

impl Protection {
    /// Reads a `sinf` box.
    pub(super) fn parse(mut sinf: Data) -> Result<Self> {
        let mut protection = Self {
            original: None,
            scheme: None,
            iv_size: 0,
            key_id: None,
        };
        while let Some((kind, mut data)) = sinf.child()? {
            match &kind {
                b"frma" => protection.original = Some(data.array()?),
                b"schm" => {
                    data.version_and_flags()?;
                    let at = data.position();
                    let scheme: FourCc = data.array()?;
                    if !SCHEMES.contains(&&scheme) {
                        return Err(Error::unsupported_codec(
                            name(scheme),
                            format!("unknown protection scheme at byte {at}"),
                        ));
                    }
                    protection.scheme = Some(scheme);
                }
                b"schi" => {
                    while let Some((kind, mut data)) = data.child()? {
                        let is_tenc = kind == *b"tenc"
                            || (kind == *b"uuid" && data.array::<16>()? == PIFF_TENC);
                        if is_tenc {
                            protection.read_defaults(data)?;
                        }
                    }
                }
                _ => {}
            }
        }
        Ok(protection)
    }

    /// Reads a track encryption box.
    fn read_defaults(&mut self, mut data: Data) -> Result<()> {
        data.version_and_flags()?;
        data.skip(2)?;
        let at = data.position();
        let (protected, size) = (data.u8()?, data.u8()?);
        self.key_id = Some(data.array()?);
        self.iv_size = check_iv(protected != 0, size, at + 1, &mut data)?;
        Ok(())
    }
}

/// An initialisation vector has 8 or 16 bytes, in each sample or constant behind the key id.
fn check_iv(protected: bool, size: u8, at: u64, rest: &mut Data) -> Result<u8> {
    if !matches!(size, 0 | 8 | 16) {
        return Err(Error::malformed(
            at,
            format!("initialisation vectors of {size} bytes"),
        ));
    }
    if protected && size == 0 {
        let at = rest.position();
        let constant = rest.u8()?;
        if !matches!(constant, 8 | 16) {
            return Err(Error::malformed(
                at,
                format!("a constant initialisation vector of {constant} bytes"),
            ));
        }
        rest.skip(usize::from(constant))?;
    }
    Ok(size)
}

/// Sample groups of type `seig`, which give runs of samples another initialisation vector size.
#[derive(Clone, Debug, Default)]
pub(super) struct KeyGroups {
    /// IV size of each description.
    sizes: Vec<u8>,
}

impl KeyGroups {
    /// Reads an `sgpd` box; other grouping types leave nothing.
    pub(super) fn parse(mut data: Data) -> Result<Option<Self>> {
        let (version, _) = data.version_and_flags()?;
        if data.array()? != *b"seig" {
            return Ok(None);
        }
        let default_len = if version >= 1 { data.u32()? } else { 0 };
        if version >= 2 {
            data.u32()?;
        }
        let count = data.u32()?;
        let mut sizes = Vec::new();
        for _ in 0..count {
            let len = match (version, default_len) {
                (0, _) => data.len() as u32,
                (_, 0) => data.u32()?,
                (_, len) => len,
            };
            let mut entry = data.take(len as usize)?;
            entry.skip(2)?;
            let at = entry.position();
            let (protected, size) = (entry.u8()?, entry.u8()?);
            entry.skip(16)?;
            sizes.push(check_iv(protected != 0, size, at + 1, &mut entry)?);
        }
        Ok(Some(Self { sizes }))
    }

    fn size(&self, index: u32) -> Option<u8> {
        self.sizes.get(index.checked_sub(1)? as usize).copied()
    }
}

/// A run-length map of samples to `seig` descriptions.
#[derive(Clone, Debug, Default)]
pub(super) struct KeyGroupRuns(Vec<(u32, u32)>);

impl KeyGroupRuns {
    /// Reads an `sbgp` box; other grouping types leave nothing.
    pub(super) fn parse(mut data: Data) -> Result<Option<Self>> {
        let (version, _) = data.version_and_flags()?;
        if data.array()? != *b"seig" {
            return Ok(None);
        }
        if version == 1 {
            data.u32()?;
        }
        let count = data.u32()?;
        let mut runs = Vec::new();
        for _ in 0..count {
            runs.push((data.u32()?, data.u32()?));
        }
        Ok(Some(Self(runs)))
    }
}

/// Everything that decides the initialisation vector size of a sample.
#[derive(Debug, Default)]
pub(super) struct IvSizes<'a> {
    /// From the sample description; `None` for a clear one.
    pub(super) default: Option<u8>,
    /// Descriptions in the track.
    pub(super) track: Option<&'a KeyGroups>,
    /// Descriptions in the fragment.
    pub(super) local: Option<KeyGroups>,
    /// Which sample is in which group.
    pub(super) runs: Option<KeyGroupRuns>,
}

impl IvSizes<'_> {
    fn each(&self) -> impl Iterator<Item = u8> {
        let default = self.default.unwrap_or(0);
        let runs = self.runs.iter().flat_map(|runs| runs.0.iter());
        runs.flat_map(move |(count, group)| {
            let size = match group {
                0 => Some(default),
                0x1_0001.. => self.local.as_ref().and_then(|l| l.size(group - 0x1_0000)),
                _ => self.track.and_then(|track| track.size(*group)),
            };
            std::iter::repeat_n(size.unwrap_or(default), *count as usize)
        })
        .chain(std::iter::repeat(default))
    }
}

/// The content of a `uuid` box if it is PIFF's sample encryption.
pub(super) fn piff_senc(mut data: Data) -> Result<Option<Data>> {
    Ok((data.array::<16>()? == PIFF_SENC).then_some(data))
}

/// Checks a `senc` box against the samples that it belongs to.
pub(super) fn check_senc(
    mut data: Data,
    ivs: &IvSizes<'_>,
    samples: u64,
    mut sizes: impl Iterator<Item = u64>,
) -> Result<()> {
    let (_, flags) = data.version_and_flags()?;
    let mut default_iv = None;
    if flags & 1 != 0 {
        // PIFF: algorithm, IV size and key id of its own.
        data.skip(3)?;
        default_iv = Some(data.u8()?);
        data.skip(16)?;
    }
    let at = data.position();
    let count = data.u32()?;
    if u64::from(count) != samples {
        return Err(Error::malformed(
            at,
            format!("encryption data for {count} samples where there are {samples}"),
        ));
    }
    let mut iv_sizes = ivs.each();
    for index in 0..count {
        let at = data.position();
        let from_group = iv_sizes.next().unwrap_or(0);
        data.skip(usize::from(default_iv.unwrap_or(from_group)))?;
        let size = sizes.next().unwrap_or(0);
        if flags & 2 == 0 {
            if data.is_empty() && ivs.runs.is_none() && from_group == 0 {
                // Nothing follows for any sample.
                break;
            }
            continue;
        }
        let mut total = 0_u64;
        for _ in 0..data.u16()? {
            total += u64::from(data.u16()?) + u64::from(data.u32()?);
        }
        if total > size {
            return Err(Error::malformed(
                at,
                format!("subsamples of {total} bytes in sample {index} of {size}"),
            ));
        }
    }
    Ok(())
}
