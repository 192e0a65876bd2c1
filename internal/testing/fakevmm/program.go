//go:build linux

package fakevmm

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
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
			return fmt.Errorf("RunWithApiError(BuildFromJson(%w))", err)
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

// configure reads the configuration file as the real one does: sections that it does not know are ignored, what it knows is not.
func (p *program) configure(faults Faults) error {
	text, err := os.ReadFile(p.config)
	if err != nil {
		return err
	}
	var sections map[string]json.RawMessage
	if err := json.Unmarshal(text, &sections); err != nil {
		return fmt.Errorf("ParseFromJson(InvalidJson(%w))", err)
	}
	for _, required := range []string{"boot-source", "drives"} {
		if sections[required] == nil {
			return fmt.Errorf("ParseFromJson(InvalidJson(Error(%q)))", "missing field `"+required+"`")
		}
	}
	if faults.Lax {
		sections["machine-config"] = json.RawMessage(`{"vcpu_count":32,"mem_size_mib":128}`)
	}
	known, _ := p.vmm.Release.fields("FullVmConfiguration")
	for _, section := range slices.Sorted(maps.Keys(sections)) {
		if !slices.Contains(known, section) {
			continue
		}
		if err := p.section(section, sections[section]); err != nil {
			return fmt.Errorf("ParseFromJson(%w)", err)
		}
	}
	if status, text := p.vmm.Do("PUT", "/actions", []byte(`{"action_type":"InstanceStart"}`)); status >= 300 {
		return fmt.Errorf("StartMicroVM(%s)", text)
	}
	p.say("Successfully started microvm that was configured from one single json")
	return nil
}

// section puts what a section of a configuration file says, as calls would.
func (p *program) section(name string, value json.RawMessage) error {
	path := map[string]string{"mmds-config": "/mmds/config", "memory-hotplug": "/hotplug/memory"}[name]
	if path == "" {
		path = "/" + name
	}
	id := map[string]string{"drives": "drive_id", "network-interfaces": "iface_id", "pmem": "id"}[name]
	values := []json.RawMessage{value}
	if id != "" {
		if err := json.Unmarshal(value, &values); err != nil {
			return err
		}
	}
	for _, one := range values {
		to := path
		if id != "" {
			var fields map[string]any
			if err := json.Unmarshal(one, &fields); err != nil {
				return err
			}
			to += fmt.Sprintf("/%v", fields[id])
		}
		if status, text := p.vmm.Do("PUT", to, one); status >= 300 {
			return errors.New(string(text))
		}
	}
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
