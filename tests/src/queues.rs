//! What waits in the queues of TCP connections, as the kernel lists it.

use std::fs;

/// Bytes that clients sent to a local port and its server has not read: in its queues, and still in theirs.
pub fn unread(port: u16) -> u64 {
    let mut bytes = 0;
    for path in ["/proc/net/tcp", "/proc/net/tcp6"] {
        let text = fs::read_to_string(path).expect("procfs is mounted");
        for line in text.lines().skip(1) {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let listens = fields[3] == "0A";
            let (unsent, unread) = fields[4].split_once(':').expect("two queues");
            for (address, waiting) in [(fields[1], unread), (fields[2], unsent)] {
                if address.ends_with(&format!(":{port:04X}")) && !listens {
                    bytes += u64::from_str_radix(waiting, 16).expect("a length");
                }
            }
        }
    }
    bytes
}
