//go:build linux

package fakevmm

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

const defaultVersion = "1.12.1"

// Invoked says whether this process was started as a firecracker that [Install] made: os.Args[0] says so.
func Invoked() bool {
	if filepath.Base(os.Args[0]) != "firecracker" {
		return false
	}
	_, err := os.Stat(faultsFile(os.Args[0]))
	return err == nil
}

// Main is the program. It does not return. It leaves by the system call: the race detector would sleep for a second.
func Main() {
	syscall.RawSyscall(syscall.SYS_EXIT_GROUP, uintptr(status()), 0, 0)
}

func status() int {
	p := &program{binary: os.Args[0]}
	if err := p.parse(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "Error:", err)
		return 153
	}
	if err := p.run(); err != nil {
		p.say("Firecracker exiting with error. exit_code=1")
		fmt.Fprintln(os.Stderr, "Error:", err)
		return 1
	}
	p.say("Firecracker exiting successfully. exit_code=0")
	return 0
}

// program is one process.
type program struct {
	binary                         string
	id, socket, config, log, level string
	noAPI, version                 bool

	vmm   *VMM
	once  sync.Once
	reset chan struct{} // closed when the guest resets
}

func (p *program) parse(args []string) error {
	flags := flag.NewFlagSet("firecracker", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.StringVar(&p.id, "id", "anonymous-instance", "")
	flags.StringVar(&p.socket, "api-sock", "/run/firecracker.socket", "")
	flags.StringVar(&p.config, "config-file", "", "")
	flags.StringVar(&p.log, "log-path", "", "")
	flags.StringVar(&p.level, "level", "", "")
	flags.BoolVar(&p.noAPI, "no-api", false, "")
	flags.BoolVar(&p.version, "version", false, "")
	return flags.Parse(args)
}

func (p *program) run() error {
	faults, err := readFaults(p.binary)
	if err != nil {
		return err
	}
	version := faults.Version
	if version == "" {
		version = defaultVersion
	}
	if p.version {
		fmt.Println("Firecracker v" + version)
		return nil
	}
	if faults.Refuse != "" {
		return errors.New(faults.Refuse)
	}
	release, err := Find(version)
	if err != nil {
		return err
	}
	p.reset = make(chan struct{})
	p.vmm = &VMM{Release: release, ID: p.id, Boot: p.boot, CtrlAltDel: p.ctrlAltDel}
	p.say("Running Firecracker v" + version)
	if faults.Silent {
		<-p.reset
	}
	if p.config != "" {
		if err := p.configure(faults); err != nil {
			if p.noAPI {
				return variant{"RunWithoutApiError", variant{"BuildMicroVMFromJson", err}}
			}
			return variant{"RunWithApi", variant{"BuildFromJson", err}}
		}
	}
	if !p.noAPI {
		if err := p.serve(); err != nil {
			return err
		}
	}
	<-p.reset
	return nil
}

// configure takes the configuration file, and starts its machine.
func (p *program) configure(faults Faults) error {
	file, err := os.ReadFile(p.config)
	if err != nil {
		return err
	}
	if err := p.vmm.configure(file, faults.Lax); err != nil {
		return err
	}
	p.say("Successfully started microvm that was configured from one single json")
	return nil
}

// say writes a line to the log.
func (p *program) say(line string) {
	if p.log == "" {
		return
	}
	f, err := os.OpenFile(p.log, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return
	}
	defer f.Close()
	fmt.Fprintf(f, "%s [%s:main] %s\n", time.Now().UTC().Format("2006-01-02T15:04:05.000000000"), p.id, line)
}
