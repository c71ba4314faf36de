//! Running the same bytes natively, beside the machine's images: the reference that translations are held against.

use engine::windows::IMAGES;

/// Executable host memory within reach of the images' data.
pub(crate) struct Native {
    base: u64,
    length: usize,
}

impl Native {
    /// Maps `length` bytes where no image goes.
    pub(crate) fn new(length: usize) -> Self {
        let base = IMAGES.base + 0x5000_0000;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE;
        let all = libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC;
        // SAFETY: a fresh mapping; the address lies in the window, behind what is reserved for images.
        let got = unsafe { libc::mmap(base as *mut _, length, all, flags, -1, 0) };
        assert_eq!(got as u64, base, "{}", std::io::Error::last_os_error());
        Self { base, length }
    }

    pub(crate) fn base(&self) -> u64 {
        self.base
    }

    /// Lays code (or an image) at the start.
    pub(crate) fn load(&self, bytes: &[u8]) {
        assert!(bytes.len() <= self.length);
        // SAFETY: inside our mapping, which is writable and of which no code runs now.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.base as *mut u8, bytes.len()) };
    }

    /// Calls a function by the x64 convention.
    pub(crate) fn call(&self, address: u64, arguments: [u64; 4]) -> u64 {
        assert!((self.base..self.base + self.length as u64).contains(&address));
        let [a, b, c, d] = arguments;
        // SAFETY: the test lays a function of this convention there.
        unsafe {
            let function: extern "win64" fn(u64, u64, u64, u64) -> u64 =
                std::mem::transmute(address as *const ());
            function(a, b, c, d)
        }
    }
}

impl Drop for Native {
    fn drop(&mut self) {
        // SAFETY: our own mapping.
        unsafe { libc::munmap(self.base as *mut _, self.length) };
    }
}
