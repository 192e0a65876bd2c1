//go:build linux

package fakevmm

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"github.com/tangle-network/microvm-runtime/firecracker/api"
)

const (
	defaultVersion = "1.12.1"
	defaultID      = "anonymous-instance"
	defaultSocket  = "/run/firecracker.socket"
)

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
	p := &program{binary: os.Args[0], log: logFile{id: defaultID, most: levelInfo}, reset: make(chan struct{})}
	syscall.RawSyscall(syscall.SYS_EXIT_GROUP, uintptr(p.end(p.run(os.Args[1:]))), 0, 0)
}

// program is one process.
type program struct {
	binary string
	given  map[string]string // arguments
	faults Faults
	log    logFile

	vmm   *VMM
	once  sync.Once
	reset chan struct{} // closed when the guest resets
}

// statuses are the exit statuses of errors by the name of their variant. All others are 1.
var statuses = map[string]int{"ParseArguments": 153, "InvalidLogLevel": 152}

// panicked is what the real one panics over. It ends by SIGABRT then, and says why in its log only.
type panicked string

func (p panicked) Error() string { return string(p) }

// end says how the program ends, and returns with which status.
func (p *program) end(err error) int {
	if err == nil {
		p.say("Firecracker exiting successfully. exit_code=0")
		return 0
	}
	if over, ok := errors.AsType[panicked](err); ok {
		p.log.say(levelError, "Firecracker panicked at src/firecracker/src/main.rs:\n"+string(over))
		abort()
	}
	status := 1
	if v, ok := err.(variant); ok {
		status = cmp.Or(statuses[v.name], status)
	}
	p.log.say(levelError, debug(err))
	fmt.Fprintln(os.Stderr, "Error:", debug(err))
	p.log.say(levelError, fmt.Sprintf("Firecracker exiting with error. exit_code=%d", status))
	return status
}

// abort ends the process by SIGABRT, which Go would catch.
func abort() {
	var action [4]uintptr // the kernel's struct sigaction: its zero value is the default action
	syscall.RawSyscall6(syscall.SYS_RT_SIGACTION, uintptr(syscall.SIGABRT), uintptr(unsafe.Pointer(&action)), 0, unsafe.Sizeof(uint64(0)), 0, 0)
	syscall.Tgkill(os.Getpid(), syscall.Gettid(), syscall.SIGABRT)
	select {}
}

// run reads the command line, and does what it says.
func (p *program) run(args []string) (err error) {
	if p.faults, err = readFaults(p.binary); err != nil {
		return err
	}
	name := cmp.Or(p.faults.Version, defaultVersion)
	version, err := api.ParseVersion(name)
	if err != nil {
		return err
	}
	var more []string
	if version.Supports(api.PCI) == nil {
		more = append(more, "enable-pci")
	}
	if p.given, err = parseArguments(args, more...); err != nil {
		return err
	}
	if p.has("version") {
		fmt.Printf("Firecracker v%s\n\n", name)
		return nil
	}
	for _, lacks := range lacking {
		if p.has(lacks) {
			return told{inDebug: "this is a fake, without --" + lacks}
		}
	}
	if p.faults.Refuse != "" {
		return told{inDebug: p.faults.Refuse}
	}
	release, err := Find(name)
	if err != nil {
		return err
	}
	return p.start(release)
}

// start does what a good command line says, until the machine has ended.
func (p *program) start(release Release) error {
	if err := p.prepare(release); err != nil {
		return err
	}
	path, configured := p.given["config-file"]
	var config []byte
	if configured {
		text, err := os.ReadFile(path)
		if err := checkText("configuration file", text, err); err != nil {
			return err
		}
		config = text
	}
	if p.faults.Silent {
		p.wait()
	}
	if p.has("no-api") {
		if err := p.configure(config); err != nil {
			return variant{"RunWithoutApiError", variant{"BuildMicroVMFromJson", err}}
		}
		p.wait()
		return nil
	}
	return p.withAPI(config)
}

// prepare begins the log and the metrics.
func (p *program) prepare(release Release) error {
	id := p.value("id", defaultID)
	if err := checkMachineID(id); err != nil {
		return err
	}
	p.log.id = id
	most, ok := levelOf(p.value("level", "Info"))
	if !ok {
		return variant{"InvalidLogLevel", variant{"LevelFilterFromStrError", errors.New(p.given["level"])}}
	}
	path, ok := p.given["log-path"]
	if err := p.log.set(most, path, ok, release.outputFlags()); err != nil {
		return variant{"LoggerInitialization", err}
	}
	p.say("Running Firecracker v" + release.Version)
	p.vmm = &VMM{Release: release, ID: id, Boot: p.boot, Loaded: p.listen, CtrlAltDel: p.ctrlAltDel, Logger: p.relog}
	if path, ok := p.given["metrics-path"]; ok {
		if err := p.vmm.startMetrics(path); err != nil {
			return variant{"MetricsInitialization", err}
		}
	}
	return nil
}

// withAPI listens first: whoever asks waits until the machine of the configuration file runs.
func (p *program) withAPI(config []byte) error {
	listener, err := p.bind(p.value("api-sock", defaultSocket))
	if err != nil {
		return variant{"RunWithApi", err}
	}
	if config != nil {
		if err := p.configure(config); err != nil {
			return variant{"RunWithApi", variant{"BuildFromJson", err}}
		}
	}
	go http.Serve(listener, http.HandlerFunc(p.answer)) // ends with the process
	p.wait()
	if p.vmm.Dead() {
		return variant{"RunWithApi", variant{"BuildMicroVmError", told{inDebug: "Restore"}}}
	}
	return nil
}

// wait waits until the guest resets. The timer is for Go, which ends a process that nothing can wake.
func (p *program) wait() {
	for {
		select {
		case <-p.reset:
			return
		case <-time.After(time.Hour):
		}
	}
}

func (p *program) configure(file []byte) error {
	if err := p.vmm.configure(file, p.faults.Lax); err != nil {
		return err
	}
	p.say("Successfully started microvm that was configured from one single json")
	return nil
}

// relog is called when the log is configured once more. That its file can be opened was seen already.
func (p *program) relog(values map[string]json.RawMessage) {
	most, ok := levelOf(text(values["level"]))
	if !ok {
		most = levelInfo
	}
	p.log.set(most, text(values["log_path"]), values["log_path"] != nil, p.vmm.Release.outputFlags())
}

func (p *program) say(line string) { p.log.say(levelInfo, line) }

func (p *program) has(argument string) bool {
	_, ok := p.given[argument]
	return ok
}

// value returns that of an argument, or what it is by default.
func (p *program) value(argument, otherwise string) string {
	if p.has(argument) {
		return p.given[argument]
	}
	return otherwise
}
