//! Entry point: turns the command line into a run, and its outcome into an exit code.

fn main() {
    inferprobe::kernel::preflight::check().unwrap();
    let (mut probes, mut rings) = match inferprobe::kernel::loader::Probes::attach() {
        Ok(x) => x,
        Err(e) => {
            println!("{e}");
            return;
        }
    };
    println!("{:?}", probes.sees_send_start);
    println!(
        "{:?}",
        inferprobe::kernel::selftest::run(&mut rings, probes.sees_send_start)
    );
    println!("{:?}", probes.scan_listeners());
}
