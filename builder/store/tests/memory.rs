//! Memory does not grow with what a layer holds. Each test is its own process: it starts itself again.
#![allow(clippy::unwrap_used, reason = "this is a test, its functions that are none too")]

use std::io::{self, Read, Write};
use std::path::Path;
use std::process::Command;

use kiln_store::Store;
use kiln_store::digest::Algorithm;
use kiln_store::layer::{Compression, LayerBlob};
use kiln_store::store::Privilege;

const ROOT: &str = "KILN_STORE_MEMORY";
const LIMIT: u64 = 64 << 20;

/// Runs `act` in a process of its own, with a new store, and holds it to the limit.
fn bounded(test: &str, act: impl FnOnce(&Store)) {
    if let Some(root) = std::env::var_os(ROOT) {
        let all_ids = std::fs::read_to_string("/proc/self/uid_map").unwrap().contains("4294967295");
        let is_root = rustix::process::geteuid().is_root() && all_ids;
        let privilege = if is_root { Privilege::Root } else { Privilege::Single };
        act(&Store::open(Path::new(&root), privilege).unwrap());
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        let peak = peak.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10;
        assert!(peak < LIMIT, "{} MiB", peak >> 20);
        return;
    }
    // A million files are a matter of seconds in memory, and of the disk's mood otherwise.
    let shared = Path::new("/dev/shm");
    let root = if shared.is_dir() { tempfile::tempdir_in(shared) } else { tempfile::tempdir() }.unwrap();
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(ROOT, root.path())
        .output()
        .unwrap();
    assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stderr));
}

/// The headers of a tar of a million files in a hundred directories, without their having to exist.
struct Million {
    next: u32,
    block: Vec<u8>,
    position: usize,
}

impl Read for Million {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.position == self.block.len() {
            self.position = 0;
            self.block.clear();
            match self.next {
                0..1_000_000 => {
                    let name = format!("directory-{:02}/file-with-a-name-{:06}", self.next / 10_000, self.next);
                    self.block = header(&name);
                }
                1_000_000 => self.block = vec![0; 1024],
                _ => return Ok(0),
            }
            self.next += 1;
        }
        let rest = &self.block[self.position..];
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        self.position += count;
        Ok(count)
    }
}

/// An empty file's.
fn header(name: &str) -> Vec<u8> {
    let mut block = vec![0; 512];
    let mut put = |at: usize, text: &[u8]| block[at..at + text.len()].copy_from_slice(text);
    put(0, name.as_bytes());
    put(100, b"0000644\0");
    put(108, b"0000000\0");
    put(116, b"0000000\0");
    put(124, b"00000000000\0");
    put(136, b"00000000001\0");
    put(148, b"        0");
    put(257, b"ustar\x0000");
    let sum: u64 = block.iter().map(|byte| u64::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

#[test]
fn a_million_entries() {
    bounded("a_million_entries", |store| {
        let mut writer = store.blobs().writer(Algorithm::Sha256).unwrap();
        let buffered = io::BufWriter::with_capacity(1 << 20, &mut writer);
        let mut encoder = flate2::write::GzEncoder::new(buffered, flate2::Compression::fast());
        io::copy(&mut Million { next: 0, block: Vec::new(), position: 0 }, &mut encoder).unwrap();
        encoder.finish().unwrap().flush().unwrap();
        let (digest, size) = writer.commit(None, false).unwrap();
        let blob = LayerBlob { digest, size, media_type: Compression::Gzip.media_type().to_owned() };
        let layer = store.unpack_blob(&blob, None).unwrap();
        assert_eq!(layer.tar_size, 1_000_000 * 512 + 1024);
        let path = store.layer_path(&layer.diff_id).join("directory-99");
        assert_eq!(std::fs::read_dir(path).unwrap().count(), 10_000);
    });
}

/// 256 MiB of zeros in a megabyte of gzip, through every way a layer takes.
#[test]
fn a_bomb() {
    bounded("a_bomb", |store| {
        let mut writer = store.blobs().writer(Algorithm::Sha256).unwrap();
        let mut encoder = flate2::write::GzEncoder::new(&mut writer, flate2::Compression::fast());
        let mut head = header("zeros");
        head[124..135].copy_from_slice(b"02000000000"); // 256 MiB
        let sum: u64 = (0..512).map(|at| if (148..156).contains(&at) { 32 } else { u64::from(head[at]) }).sum();
        head[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        encoder.write_all(&head).unwrap();
        io::copy(&mut io::repeat(0).take((256 << 20) + 1024), &mut encoder).unwrap();
        encoder.finish().unwrap();
        let (digest, size) = writer.commit(None, false).unwrap();
        let blob = LayerBlob { digest, size, media_type: Compression::Gzip.media_type().to_owned() };
        let layer = store.unpack_blob(&blob, None).unwrap();
        for compression in [Compression::Zstd, Compression::Gzip] {
            store.compress(&layer.diff_id, compression).unwrap();
        }
        let mut again = Vec::new();
        let packed = store.compress(&layer.diff_id, Compression::Zstd).unwrap();
        store.blobs().get(&packed.digest).unwrap().unwrap().read_to_end(&mut again).unwrap();
        store.import_tar(&mut again.as_slice()).unwrap();
    });
}
