//go:build linux

package state

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/internal/firewall"
	"github.com/tangle-network/microvm-runtime/internal/unix"
	"github.com/tangle-network/microvm-runtime/internal/vmm"
)

// Phase is how far the making or unmaking of a machine has come.
type Phase string

// The phases of a machine.
const (
	PhaseCreating   Phase = "creating"
	PhaseCreated    Phase = "created"
	PhaseDestroying Phase = "destroying"
)

// Record is what must survive power loss. It does not hold the name.
type Record struct {
	UID     string       `json:"uid"`
	Phase   Phase        `json:"phase"`
	Created time.Time    `json:"created"`
	Spec    microvm.Spec `json:"spec"` // Resolved.
	// Files are what the machine boots from: paths in the store.
	Files Files `json:"files"`
	// Image is what the image's maker says about running it. Nil for an image that is only a path.
	Image *microvm.ImageConfig `json:"image,omitempty"`
	// Agent says that the guest agent boots the machine.
	Agent bool `json:"agent"`
	// Jailed says that the VMM runs in a jail.
	Jailed bool `json:"jailed"`
	// Waiting says that it is no machine yet: a process has all of one ready for the next restore of a snapshot, and holds its lock.
	Waiting bool `json:"waiting,omitempty"`
	// Copied is how many bytes of its disk were copied when it was made.
	Copied int64 `json:"copied,omitempty"`
	// Address is the machine's own. Not valid where it has no network.
	Address netip.Addr `json:"address,omitzero"`
	// Rules are those of the Spec's policy with the numbers that the firewall knows them by, and those of policies before, whose numbers no other rule gets.
	Rules []firewall.Rule `json:"rules,omitempty"`
	// Slot is the number of the lease; meaningful when Jailed, or with a network.
	Slot int `json:"slot"`
	// JailUID and JailGID are whom the VMM runs as in its jail. 0 in records of before they were kept: Slot tells them then.
	JailUID int `json:"jail_uid,omitempty"`
	JailGID int `json:"jail_gid,omitempty"`
}

// Files are the shared, read-only files that a machine boots from. Empty where it has none.
type Files struct {
	Kernel string `json:"kernel"`
	Initrd string `json:"initrd,omitempty"`
	Base   string `json:"base,omitempty"`
	// Drives has an entry for each of the Spec's, empty where it is writable: then the caller's own is used.
	Drives []string `json:"drives,omitempty"`
}

// Run is what dies with the host's present boot: one run of a machine, from Start until its end is settled. Until it is committed it may be undone
// without a trace.
type Run struct {
	BootID  string        `json:"boot_id"`
	State   microvm.State `json:"state"` // Running or paused.
	Started time.Time     `json:"started"`
	Process *vmm.Identity `json:"process,omitempty"` // Nil until its VMM is born.
	Starter *vmm.Identity `json:"starter,omitempty"` // The process that started it, and so is told how its VMM ends.
	// Intent says who asked for the run's end, before it is asked for. Nil while nobody has.
	Intent *Intent `json:"intent,omitempty"`
	// Firecracker is the version of its VMM, such as "1.12.1". Empty in runs of before it was kept: their VMM is the one that Options.Firecracker names.
	Firecracker string `json:"firecracker,omitempty"`
	// Snapshot is the uid of the snapshot that it began with. Empty where it booted.
	Snapshot string `json:"snapshot,omitempty"`
	// Pager says that a helper serves its memory, which it must for as long as the run lasts.
	Pager bool `json:"pager,omitempty"`
	// Held says that nobody has the machine yet: it waits, paused, to be claimed.
	Held bool `json:"held,omitempty"`
	// Claiming says that it is being handed out. Where that was interrupted Recover takes the machine back: it may be half somebody's.
	Claiming bool `json:"claiming,omitempty"`
	// PagerEnds says that the machine ends with that helper, in place of being served by another.
	PagerEnds bool `json:"pager_ends,omitempty"`
	// DirtySince is the uid of the snapshot since which the VMM remembers what pages are written; a snapshot of only those may be over that one and no other. Empty where pages would be lost.
	DirtySince string `json:"dirty_since,omitempty"`
	// Taking says that a snapshot is being taken. Who finds it with the machine's lock ends that.
	Taking *Taking `json:"taking,omitempty"`
	// Resets is how many snapshots may have ended the connections of its vsock.
	Resets int `json:"resets,omitempty"`

	Committed bool           `json:"-"` // Its VMM has answered: the machine runs. Told by a file of its own; see Commit.
	Timeline  []microvm.Mark `json:"-"` // The steps of its start, once committed.
}

// Taking is a snapshot that is being taken: its VMM may have written what is to be removed.
type Taking struct {
	Stands bool   `json:"stands"`          // The guest stands for it, and is to go on.
	Token  string `json:"token,omitempty"` // By which the agent lets the workload go on. Empty where it has none that stands.
}

// Intent is a wish that a run ends.
type Intent struct {
	Reason microvm.Reason `json:"reason"`
	Time   time.Time      `json:"time"`
}

// ReadRun returns the present run, nil when there is none under this boot. Whether it is committed is told by another file: both are read of one moment.
func (d *Dir) ReadRun(uid string) (*Run, error) {
	for {
		f, err := os.OpenFile(d.runFile(uid), os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0) // while it is open no file that replaces it has its inode
		if errors.Is(err, os.ErrNotExist) {
			return nil, nil
		}
		r, readErr := d.readRun(uid)
		still := err != nil || stands(f, d.runFile(uid)) // what can't be opened is told by who reads it
		f.Close()
		if still {
			return r, readErr
		}
	}
}

func (d *Dir) readRun(uid string) (*Run, error) {
	var r Run
	err := read(d.runFile(uid), &r)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if r.BootID != d.bootID {
		return nil, nil
	}
	err = read(d.commitFile(uid), &r.Timeline)
	r.Committed = err == nil
	return &r, ignoreMissing(err)
}

// stands says whether path still leads to a file.
func stands(f *os.File, path string) bool {
	had, err := f.Stat()
	if err != nil {
		return false
	}
	has, err := os.Lstat(path)
	return err == nil && os.SameFile(had, has)
}

// WriteRun replaces the volatile record.
func (l *Lock) WriteRun(r Run) error {
	r.BootID = l.dir.bootID
	return write(l.dir.runFile(l.uid), r, false)
}

// RemoveRun says that no run goes on.
func (l *Lock) RemoveRun() error {
	return errors.Join(ignoreMissing(os.Remove(l.dir.runFile(l.uid))), ignoreMissing(os.Remove(l.dir.commitFile(l.uid))))
}

// Commit says that the run's VMM has answered, and what its start took. It has a file of its own: on some file systems to replace a file costs a
// flush, and this is written while somebody waits for the machine.
func (l *Lock) Commit(timeline []microvm.Mark) error {
	return write(l.dir.commitFile(l.uid), timeline, false)
}

func (d *Dir) commitFile(uid string) string { return filepath.Join(d.Volatile(uid), "commit.json") }

func (d *Dir) runFile(uid string) string { return filepath.Join(d.Volatile(uid), "run.json") }

// Begun says whether the machine was ever started, and when last.
//
// The file's time is when, its text the boot id: to write that over itself costs no flush.
func (d *Dir) Begun(uid string) (time.Time, bool) {
	info, err := os.Lstat(filepath.Join(d.Machine(uid), "started"))
	if err != nil {
		return time.Time{}, false
	}
	return info.ModTime(), true
}

// BegunNow says whether the last run began in the host's present boot.
func (d *Dir) BegunNow(uid string) (bool, error) {
	path := filepath.Join(d.Machine(uid), "started")
	text, err := os.ReadFile(path)
	if err != nil {
		return false, ignoreMissing(err)
	}
	if boot := strings.TrimSpace(string(text)); boot != "" {
		return boot == d.bootID, nil
	}
	booted, err := unix.BootTime() // older programs kept the time only
	begun, _ := d.Begun(uid)
	return begun.After(booted), err
}

// Begin notes when a run began: it survives this process, and so does that no end of it is known.
func (l *Lock) Begin(when time.Time) error {
	f, err := os.OpenFile(l.startedFile(), os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	if _, err = f.WriteAt([]byte(l.dir.bootID+"\n"), 0); err != nil { // without a byte of space the time has to do
		err = f.Truncate(0)
	}
	return errors.Join(err, f.Close(), os.Chtimes(l.startedFile(), when, when), ignoreMissing(os.Remove(l.exitFile())))
}

// Unbegin takes Begin back: the machine had last been started at the time before, and ended so. Zero and nil when it never was.
func (l *Lock) Unbegin(before time.Time, exit *microvm.Exit) error {
	if before.IsZero() {
		return errors.Join(ignoreMissing(os.Remove(l.startedFile())), ignoreMissing(os.Remove(l.exitFile())))
	}
	err := l.Begin(before)
	if exit != nil {
		err = errors.Join(err, l.WriteExit(*exit))
	}
	return err
}

func (l *Lock) startedFile() string { return filepath.Join(l.dir.Machine(l.uid), "started") }

// ReadExit returns how the last run ended, nil when that is not known.
func (d *Dir) ReadExit(uid string) (*microvm.Exit, error) {
	var e microvm.Exit
	err := read(filepath.Join(d.Machine(uid), "exit.json"), &e)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return &e, nil
}

// WriteExit records how the last run ended.
func (l *Lock) WriteExit(e microvm.Exit) error { return write(l.exitFile(), e, false) }

func (l *Lock) exitFile() string { return filepath.Join(l.dir.Machine(l.uid), "exit.json") }
