//go:build linux

package agent

import (
	"os"
	"syscall"

	"github.com/tangle-network/microvm-runtime/internal/wire"
)

// files are the standard streams of a process, on both sides.
type files struct {
	theirs         [3]*os.File
	stdin          *os.File // ours; nil without standard input
	stdout, stderr *os.File // ours; no stderr with a terminal
	terminal       bool     // all of theirs are one terminal, and stdin and stdout are its other side
}

func openFiles(request *wire.Exec, owner *syscall.Credential) (f *files, err error) {
	f = &files{terminal: request.TTY != nil}
	defer func() {
		if err != nil {
			f.close()
		}
	}()
	if f.terminal {
		master, slave, err := openTerminal(*request.TTY, owner)
		f.stdin, f.stdout, f.theirs = master, master, [3]*os.File{slave, slave, slave}
		return f, err
	}
	if request.Stdin {
		f.theirs[0], f.stdin, err = os.Pipe()
	} else {
		f.theirs[0], err = os.Open(os.DevNull)
	}
	if err == nil {
		f.stdout, f.theirs[1], err = os.Pipe()
	}
	if err == nil {
		f.stderr, f.theirs[2], err = os.Pipe()
	}
	return f, err
}

// started lets the process's side go. A terminal's stays until its leader has ended: a program may close all that it has of it and open /dev/tty again, and our side
// would have ended meanwhile.
func (f *files) started(c *child) {
	if !f.terminal {
		f.closeTheirs()
		return
	}
	go func() {
		<-c.ended
		f.closeTheirs()
	}()
}

func (f *files) closeTheirs() {
	for _, file := range f.theirs {
		if file != nil {
			file.Close()
		}
	}
}

func (f *files) close() {
	f.closeTheirs()
	for _, file := range []*os.File{f.stdin, f.stdout, f.stderr} {
		if file != nil {
			file.Close()
		}
	}
}
