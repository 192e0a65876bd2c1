//go:build linux

package doctor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/tangle-network/microvm-runtime/firecracker"
	"github.com/tangle-network/microvm-runtime/internal/disk"
)

// storeCheck is the name of what Fix reports.
const storeCheck = "store"

// Fix does what can be done about findings, and reports it. What it does is one thing: where files of the state directory can't share blocks, it makes an xfs in a file beside it, called as the
// state directory with .xfs behind it, with all its space allocated, and mounts it at the state directory. Making the mount last over a reboot is left to who keeps /etc/fstab: the report has
// the line.
//
// It does so only while the state directory is empty, so never where there is a machine; else the report has the commands that move what is there. It may be called again at any time: a file that is
// there already is mounted, and what is mounted is left alone.
func Fix(ctx context.Context, o Options) Report { return fix(ctx, thisHost(), o) }

func fix(ctx context.Context, h host, o Options) Report {
	driver := o.Driver.Defaults()
	if h.uid != 0 {
		return Report{fail(storeCheck, fmt.Sprintf("user %d", h.uid), "run as root: a file system is to be mounted")}
	}
	if !driver.Bare && !below(driver.JailDir, driver.StateDir) {
		return Report{warn(storeCheck, fmt.Sprintf("jails are at %s, and must be on the state directory's file system", driver.JailDir), "unset MICROVM_JAILER_CHROOT_BASE, once there is no machine, and run this again")}
	}
	s, err := openStore(ctx, h, driver)
	if err != nil {
		return Report{fail(storeCheck, err.Error(), "make the state directory, or set MICROVM_STATE_DIR")}
	}
	defer s.Close()
	return Report{s.fix(ctx, o.StoreMiB)}
}

// below says whether a path is in a directory.
func below(path, dir string) bool {
	relative, err := filepath.Rel(dir, path)
	return err == nil && relative != ".." && !strings.HasPrefix(relative, "../")
}

// fix makes the store where it is missing and can be made.
func (s *store) fix(ctx context.Context, sizeMiB int) Finding {
	can, err := s.host.reflink(s.dir)
	if err != nil {
		return fail(storeCheck, err.Error(), "make it possible to write there, or set MICROVM_STATE_DIR")
	}
	if can {
		return s.lasts(s.dir + " has files that can share blocks")
	}
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return fail(storeCheck, err.Error(), "let root read it, or set MICROVM_STATE_DIR")
	}
	if len(entries) > 0 {
		return warn(storeCheck, s.dir+" is not empty, and nothing was done", s.moving())
	}
	what := "mounted"
	if _, err := os.Lstat(s.image); errors.Is(err, os.ErrNotExist) {
		what = "made and mounted"
		if err := s.make(ctx, sizeMiB); err != nil {
			return fail(storeCheck, err.Error(), "make room, install xfsprogs (apt-get install xfsprogs), or say another size (--store-size)")
		}
	}
	if err := s.mount(ctx); err != nil {
		if what != "mounted" { // it has nothing but space
			err = errors.Join(err, os.Remove(s.image))
		}
		return fail(storeCheck, err.Error(), "use a kernel with xfs and loop devices (modprobe xfs loop), and, where "+s.image+" was there before, look at what it is")
	}
	return s.lasts(fmt.Sprintf("%s was %s at %s", s.image, what, s.dir))
}

// moving is how what is in the state directory comes to be in a store.
func (s *store) moving() string {
	dir, old := quoted(s.dir), quoted(s.dir+".old")
	return fmt.Sprintf("stop all machines and end every program that uses it, then `mv %s %s`, `microvm doctor --fix`, `cp -a %s/. %s/`, and, once `microvm ls` and a start show that all is there, "+
		"`rm -r %s` (files that are lent to machines as writable drives must be moved onto it too)", dir, old, old, dir, old)
}

// quoted is a path as a shell takes it.
func quoted(path string) string {
	plain := func(r rune) bool {
		return r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || strings.ContainsRune("/._-", r)
	}
	if strings.IndexFunc(path, func(r rune) bool { return !plain(r) }) < 0 {
		return path
	}
	return "'" + strings.ReplaceAll(path, "'", `'\''`) + "'"
}

// lasts says whether the host mounts the store when it boots. A state directory that has no file beside it is no store of ours.
func (s *store) lasts(evidence string) Finding {
	if _, err := os.Lstat(s.image); err != nil {
		return ok(storeCheck, evidence)
	}
	text, err := os.ReadFile(s.host.path("/etc/fstab"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fail(storeCheck, evidence+"; "+err.Error(), "see that it is mounted when the host boots")
	}
	escape := strings.NewReplacer(`\`, `\134`, " ", `\040`, "\t", `\011`)
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		if len(fields) > 1 && !strings.HasPrefix(fields[0], "#") && fields[1] == escape.Replace(s.dir) {
			return ok(storeCheck, evidence+", and is in /etc/fstab")
		}
	}
	return warn(storeCheck, evidence+"; a reboot leaves it unmounted", fmt.Sprintf("add this line to /etc/fstab: %s %s xfs loop 0 0", escape.Replace(s.image), escape.Replace(s.dir)))
}

// runProgram executes an administrators' program. Its words are the error.
func runProgram(ctx context.Context, program string, args ...string) error {
	path, err := disk.Find(program)
	if err != nil {
		return fmt.Errorf("%s is not installed", program)
	}
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	if out, err := cmd.CombinedOutput(); err != nil {
		return errors.Join(context.Cause(ctx), fmt.Errorf("%s: %w: %s", program, err, bytes.TrimSpace(out)))
	}
	return nil
}

// openStore makes the state directory, if it is missing, and keeps others that would fix it out.
func openStore(ctx context.Context, h host, o firecracker.Options) (*store, error) {
	if err := os.MkdirAll(o.StateDir, 0o700); err != nil {
		return nil, err
	}
	dir, err := filepath.EvalSymlinks(o.StateDir) // the file is beside where it really is
	if err != nil {
		return nil, err
	}
	return lockStore(ctx, h, dir)
}
