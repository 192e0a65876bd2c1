//go:build linux

package unix

import (
	"os"

	"golang.org/x/sys/unix"
)

// Elevated says whether this process has rights that who started it may lack: its real and effective ids differ, or the kernel says that the program is set-user-ID, set-group-ID, or has file
// capabilities that its caller had not (AT_SECURE, getauxval(3)). What it is given, such as its environment, is then not to be trusted.
func Elevated() bool {
	if os.Getuid() != os.Geteuid() || os.Getgid() != os.Getegid() {
		return true
	}
	const secure = 23        // AT_SECURE
	vector, _ := unix.Auxv() // Linux has always one
	for _, entry := range vector {
		if entry[0] == secure {
			return entry[1] != 0
		}
	}
	return false
}
