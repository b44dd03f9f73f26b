//! What the machine has, as far as this process may use it.

use std::fs::read_to_string;

/// Where a container's limit is told, in the two versions of control groups.
const LIMITS: [&str; 2] = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];

/// Bytes of memory: the machine's, or those of the container, if it has fewer. Without limit where nobody tells.
pub fn memory_bytes() -> u64 {
    let of_machine = read_to_string("/proc/meminfo").ok().and_then(|text| total(&text));
    let of_container = LIMITS.iter().filter_map(|file| read_to_string(file).ok()?.trim().parse().ok());
    of_container.chain(of_machine).min().unwrap_or(u64::MAX)
}

fn total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kilobytes.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_found() {
        assert_eq!(total("MemTotal:       32780932 kB\nMemFree: 1 kB\n"), Some(32_780_932 << 10));
        assert_eq!(total("Something: 1"), None);
        assert!(64 << 20 < memory_bytes());
    }
}
