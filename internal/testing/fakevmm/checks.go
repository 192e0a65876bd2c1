//go:build linux

package fakevmm

import (
	"encoding/json"
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// checks are what the real one looks at before it takes a configuration, by route (src/vmm/src/resources.rs@v1.12.1, and what it calls).
var checks = map[string]func(*VMM, request) error{
	"PUT /machine-config": (*VMM).checkMachine, "PATCH /machine-config": (*VMM).checkMachine, "PUT /boot-source": (*VMM).checkBootSource, "PUT /drives/{drive_id}": (*VMM).checkDrive,
	"PUT /network-interfaces/{iface_id}": (*VMM).checkInterface, "PUT /vsock": (*VMM).checkVsock, "PUT /balloon": (*VMM).checkBalloon, "PUT /mmds/config": (*VMM).checkMetadata,
	"PUT /logger": (*VMM).checkLogger, "PUT /metrics": (*VMM).checkMetrics, "PATCH /drives/{drive_id}": (*VMM).checkDrivePatch, "PATCH /network-interfaces/{iface_id}": (*VMM).checkInterfacePatch,
}

// open says why a file can't be opened, in the words of Rust's standard library.
func (v *VMM) open(path string, flags int) error {
	f, err := os.OpenFile(v.at(path), flags|syscall.O_NONBLOCK, 0o666)
	if err == nil {
		return f.Close()
	}
	return osError(err)
}

func (v *VMM) at(path string) string {
	if path == "" || filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(v.Dir, path)
}

// inDirectory says why a file can't be made: there is no directory for it.
func (v *VMM) inDirectory(path string) error {
	if _, err := os.Stat(filepath.Dir(v.at(path))); err != nil {
		return osError(err)
	}
	return nil
}

// What a machine's configuration is refused for (src/vmm/src/vmm_config/machine_config.rs@v1.12.1).
var (
	errVCPUs         = told{"Machine config error: The number of vCPUs must be greater than 0, less than 32 and must be 1 or an even number if SMT is enabled.", "InvalidVcpuCount"}
	errMemory        = told{"Machine config error: The memory size (MiB) is either 0, or not a multiple of the configured page size.", "InvalidMemorySize"}
	errUnderBalloon  = told{"Machine config error: The memory size (MiB) is smaller than the previously set balloon device target size.", "IncompatibleBalloonSize"}
	errBalloonBefore = told{"Machine config error: Firecracker's huge pages support is incompatible with memory ballooning.", "BalloonAndHugePages"}
)

func (v *VMM) checkMachine(r request) error {
	for field, value := range v.set["/machine-config"] { // PUT begins anew but for the template
		if r.values[field] == nil && (field == "cpu_template" || r.key == "PATCH /machine-config") {
			r.values[field] = value
		}
	}
	m := struct {
		VCPUs  int    `json:"vcpu_count"`
		Memory int    `json:"mem_size_mib"`
		SMT    bool   `json:"smt"`
		Huge   string `json:"huge_pages"`
	}{VCPUs: 1, Memory: 128}
	read(r.values, &m)
	switch {
	case m.VCPUs < 1 || m.VCPUs > 32 || m.SMT && m.VCPUs > 1 && m.VCPUs%2 == 1:
		return errVCPUs
	case m.Memory == 0 || m.Huge == "2M" && m.Memory%2 == 1:
		return errMemory
	case v.set["/balloon"] != nil && m.Memory < integerOf(v.set["/balloon"]["amount_mib"]):
		return errUnderBalloon
	case v.set["/balloon"] != nil && m.Huge == "2M":
		return errBalloonBefore
	}
	return nil
}

// read fills a struct from fields.
func read(values map[string]json.RawMessage, into any) {
	text, err := json.Marshal(values)
	if err == nil {
		json.Unmarshal(text, into)
	}
}

// memory returns the machine's, in MiB.
func (v *VMM) memory() int {
	if raw := v.set["/machine-config"]["mem_size_mib"]; raw != nil {
		return integerOf(raw)
	}
	return 128
}

func integerOf(raw json.RawMessage) (n int) {
	json.Unmarshal(raw, &n)
	return n
}

// commandLineSize is the kernel's, in bytes, its end included: on x86_64.
const commandLineSize = 2048

func (v *VMM) checkBootSource(r request) error {
	if err := v.open(text(r.values["kernel_image_path"]), os.O_RDONLY); err != nil {
		return told{"Boot source error: The kernel file cannot be opened: %s", "InvalidKernelPath(%s)"}.of(err)
	}
	if initrd := r.values["initrd_path"]; initrd != nil {
		if err := v.open(text(initrd), os.O_RDONLY); err != nil {
			return told{"Boot source error: The initrd file cannot be opened due to invalid path or invalid permissions. %s", "InvalidInitrdPath(%s)"}.of(err)
		}
	}
	if len(text(r.values["boot_args"])) >= commandLineSize {
		return told{"Boot source error: The kernel command line is invalid: %s", "InvalidKernelCommandLine(%s)"}.of(refusal("Invalid cmdline capacity provided."))
	}
	return nil
}

func (v *VMM) checkDrive(r request) error {
	if boolean(r.values["is_root_device"]) {
		for path, drive := range v.set {
			if strings.HasPrefix(path, "/drives/") && path != r.path && boolean(drive["is_root_device"]) {
				return told{"Drive config error: A root block device already exists!", "RootBlockDeviceAlreadyAdded"}
			}
		}
	}
	const prefix = "Drive config error: Unable to create the virtio block device: "
	if r.values["path_on_host"] == nil || r.values["socket"] != nil {
		return told{prefix + "Invalid block config.", "CreateBlockDevice(InvalidBlockConfig)"}
	}
	flags := os.O_RDWR
	if boolean(r.values["is_read_only"]) {
		flags = os.O_RDONLY
	}
	path := text(r.values["path_on_host"])
	if err := v.open(path, flags); err != nil {
		return told{
			prefix + "Virtio backend error: Error manipulating the backing file: " + err.Error() + " " + path,
			"CreateBlockDevice(VirtioBackend(BackingFile(" + debug(err) + ", " + quote(path) + ")))",
		}
	}
	return nil
}

func boolean(raw json.RawMessage) (b bool) {
	json.Unmarshal(raw, &b)
	return b
}

func (v *VMM) checkInterface(r request) error {
	for path, other := range v.set {
		if mac := r.values["guest_mac"]; mac != nil && strings.HasPrefix(path, "/network-interfaces/") && path != r.path && strings.EqualFold(text(mac), text(other["guest_mac"])) {
			return told{"Network config error: The MAC address is already in use: %s", "GuestMacAddressInUse(%s)"}.of(refusal(strings.ToLower(text(mac))))
		}
	}
	const prefix = "Network config error: Could not create the network device: Open tap device failed: "
	name := text(r.values["host_dev_name"])
	if len(name) > 15 {
		return told{prefix + "Invalid interface name", "CreateNetworkDevice(TapOpen(InvalidIfname))"}
	}
	for path, other := range v.set {
		if strings.HasPrefix(path, "/network-interfaces/") && path != r.path && text(other["host_dev_name"]) == name {
			busy := hostError(syscall.EBUSY)
			return told{
				prefix + "Error while creating ifreq structure: " + busy.Error() + ". Invalid TUN/TAP Backend provided by " + name + ". Check our documentation on setting up the network devices.",
				"CreateNetworkDevice(TapOpen(IfreqExecuteError(" + debug(busy) + ", " + quote(name) + ")))",
			}
		}
	}
	return nil
}

func (v *VMM) checkVsock(r request) error {
	if old := v.set["/vsock"]; old != nil && text(old["uds_path"]) == text(r.values["uds_path"]) {
		return nil // its socket is removed first
	}
	refused := told{"Vsock config error: Cannot create backend for vsock device: Error binding to the host-side Unix socket: %s", "CreateVsockBackend(UnixBind(%s))"}
	path := text(r.values["uds_path"])
	if len(path) > socketPathLimit {
		return refused.of(errSocketPath)
	}
	if err := v.inDirectory(path); err != nil {
		return refused.of(err)
	}
	if _, err := os.Lstat(v.at(path)); !errors.Is(err, fs.ErrNotExist) {
		return refused.of(hostError(syscall.EADDRINUSE))
	}
	return nil
}

func (v *VMM) checkBalloon(r request) error {
	if integerOf(r.values["amount_mib"]) > v.memory() {
		return told{"Balloon config error: Amount of pages requested is too large.", "TooManyPagesRequested"}
	}
	if text(v.set["/machine-config"]["huge_pages"]) == "2M" {
		return told{"Balloon config error: Firecracker's huge pages support is incompatible with memory ballooning.", "HugePages"}
	}
	return nil
}

func (v *VMM) checkMetadata(r request) error {
	if raw := r.values["ipv4_address"]; raw != nil && !linkLocal(text(raw)) {
		return told{"MMMDS config error: The MMDS IPv4 address is not link local.", "InvalidIpv4Addr"}
	}
	var interfaces []string
	json.Unmarshal(r.values["network_interfaces"], &interfaces)
	if len(interfaces) == 0 {
		return told{"MMMDS config error: The list of network interface IDs that allow forwarding MMDS requests is empty.", "EmptyNetworkIfaceList"}
	}
	for _, id := range interfaces {
		if v.set["/network-interfaces/"+id] == nil {
			return told{
				"MMMDS config error: The list of network interface IDs provided contains at least one ID that does not correspond to any existing network interface.", "InvalidNetworkInterfaceId",
			}
		}
	}
	return nil
}

// linkLocal says whether an IPv4 address is one that RFC 3927 lets be used.
func linkLocal(text string) bool {
	addr, err := netip.ParseAddr(text)
	if err != nil {
		return false
	}
	b := addr.As4()
	return addr.IsLinkLocalUnicast() && b[2] != 0 && b[2] != 255
}

func (v *VMM) checkLogger(r request) error {
	if r.values["log_path"] == nil {
		return nil
	}
	if err := v.open(text(r.values["log_path"]), v.Release.outputFlags()); err != nil {
		return told{"Logger error: Failed to open target file: %s", "LoggerUpdateError(%s)"}.of(err)
	}
	return nil
}

func (v *VMM) checkMetrics(r request) error { return v.startMetrics(text(r.values["metrics_path"])) }

// startMetrics opens their file: once.
func (v *VMM) startMetrics(path string) error {
	refused := told{"Metrics error: Cannot initialize the metrics system due to bad user input: %s", "InitializationFailure(%s)"}
	if err := v.open(path, v.Release.outputFlags()); err != nil {
		return refused.of(refusal(err.Error())) // there it is a text
	}
	if v.metrics {
		return refused.of(refusal("Reinitialization of metrics not allowed."))
	}
	v.metrics = true
	return nil
}
