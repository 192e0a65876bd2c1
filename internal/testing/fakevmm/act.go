//go:build linux

package fakevmm

import (
	"debug/elf"
	"encoding/json"
	"io"
	"os"
	"strings"
	"syscall"
)

// act does what was asked for.
func (v *VMM) act(r request) (any, error) {
	if v.set == nil {
		v.set, v.orders = map[string]map[string]json.RawMessage{}, map[string][]string{}
	}
	switch r.key {
	case "GET /":
		return map[string]string{"id": v.ID, "state": v.state(), "vmm_version": v.Release.Version, "app_name": "Firecracker"}, nil
	case "GET /version":
		return map[string]string{"firecracker_version": v.Release.Version}, nil
	case "GET /vm/config":
		return v.config(), nil
	case "GET /machine-config":
		return v.machineConfig(), nil
	case "GET /balloon", "GET /balloon/statistics", "PATCH /balloon", "PATCH /balloon/statistics":
		return v.balloon(r)
	case "GET /mmds":
		return v.metadata(), nil
	case "PUT /mmds", "PATCH /mmds":
		return nil, v.putMetadata(r)
	case "PUT /actions":
		return nil, v.action(text(r.values["action_type"]))
	case "PATCH /vm":
		v.paused = text(r.values["state"]) == "Paused"
		return nil, nil
	case "PUT /snapshot/create":
		return nil, v.snapshot(r)
	case "PUT /snapshot/load":
		return nil, v.load(r)
	}
	if check := checks[r.key]; check != nil {
		if err := check(v, r); err != nil {
			return nil, err
		}
	}
	if r.key == "PUT /logger" && v.Logger != nil {
		v.Logger(r.values)
	}
	switch {
	case strings.HasPrefix(r.key, "PUT ") || r.key == "PATCH /machine-config":
		v.put(r.path, r.values)
	case v.set[r.path] != nil:
		v.patch(r.path, r.values)
	}
	return nil, nil
}

func text(raw json.RawMessage) string {
	var s string
	json.Unmarshal(raw, &s)
	return s
}

func (v *VMM) state() string {
	switch {
	case !v.booted:
		return "Not started"
	case v.paused:
		return "Paused"
	}
	return "Running"
}

func (v *VMM) action(what string) error {
	switch {
	case what == "InstanceStart" && v.booted:
		return refusal(tooLate)
	case what == "InstanceStart" && v.set["/boot-source"] == nil:
		return refusal("Start microvm error: Cannot start microvm without kernel configuration.")
	case what == "InstanceStart":
		if err := v.boot(); err != nil {
			return refusal("Start microvm error: " + err.Error())
		}
	case !v.booted:
		return refusal(tooEarly)
	case what == "SendCtrlAltDel" && v.CtrlAltDel != nil:
		v.CtrlAltDel()
	}
	return nil
}

// boot loads the kernel: an ELF file, or a [Kernel].
func (v *VMM) boot() error {
	head := make([]byte, 64)
	f, err := os.Open(v.at(text(v.set["/boot-source"]["kernel_image_path"])))
	if err != nil {
		return err
	}
	defer f.Close()
	kernel := told{
		"System configuration error: Cannot load kernel due to invalid memory configuration or invalid kernel image: Kernel Loader: failed to load ELF kernel image: Kernel Loader: %s",
		"ConfigureSystem(KernelLoader(Elf(%s)))",
	}
	n, _ := io.ReadFull(f, head)
	switch {
	case n > 0 && head[0] == '{':
	case n < len(head):
		return kernel.of(told{"Unable to read elf header", "ReadElfHeader"})
	case string(head[:4]) != elf.ELFMAG:
		return kernel.of(told{"Invalid Elf magic number", "InvalidElfMagicNumber"})
	}
	if err := v.checkInitrd(); err != nil {
		return err
	}
	if v.Boot != nil {
		if err := v.Boot(); err != nil {
			return err
		}
	}
	v.booted = true
	return nil
}

// checkInitrd says why an initrd can't be loaded.
func (v *VMM) checkInitrd() error {
	raw := v.set["/boot-source"]["initrd_path"]
	if raw == nil {
		return nil
	}
	info, err := os.Stat(v.at(text(raw)))
	switch {
	case err != nil:
		return err
	case info.IsDir():
		return told{"Error with initrd initialization: Cannot load initrd due to an invalid image: %s.", "Initrd(Read(IOError(%s)))"}.of(hostError(syscall.EISDIR))
	case info.Size() == 0:
		return told{"Error with initrd initialization: Cannot load initrd due to an invalid memory configuration..", "Initrd(Load)"}
	}
	return nil
}
