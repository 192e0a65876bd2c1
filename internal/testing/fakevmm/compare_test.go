//go:build linux

package fakevmm

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tangle-network/microvm-runtime/internal/testing/ring"
	"github.com/tangle-network/microvm-runtime/internal/testing/tinyguest"
)

// call is a request that is good in itself: where it is refused it is for what was called before, or for the version.
type call struct{ route, path, body string }

func (c call) method() string { method, _, _ := strings.Cut(c.route, " "); return method }

func (c call) String() string { return c.method() + " " + c.path + " " + c.body }

// calls has at least one row for each route of each version.
var calls = []call{
	{"GET /", "/", ""},
	{"GET /version", "/version", ""},
	{"GET /vm/config", "/vm/config", ""},
	{"GET /machine-config", "/machine-config", ""},
	{"PUT /machine-config", "/machine-config", `{"vcpu_count":1,"mem_size_mib":128}`},
	{"PATCH /machine-config", "/machine-config", `{"mem_size_mib":128}`},
	{"PUT /boot-source", "/boot-source", `{"kernel_image_path":"kernel"}`},
	{"PUT /cpu-config", "/cpu-config", `{}`},
	{"PUT /drives/{drive_id}", "/drives/d1", `{"drive_id":"d1","path_on_host":"disk","is_root_device":false,"is_read_only":true}`},
	{"PATCH /drives/{drive_id}", "/drives/d1", `{"drive_id":"d1","path_on_host":"disk"}`},
	{"DELETE /drives/{drive_id}", "/drives/d1", ""},
	{"PUT /pmem/{id}", "/pmem/p1", `{"id":"p1","path_on_host":"disk"}`},
	{"PATCH /pmem/{id}", "/pmem/p1", `{"id":"p1"}`},
	{"DELETE /pmem/{id}", "/pmem/p1", ""},
	{"PUT /network-interfaces/{iface_id}", "/network-interfaces/eth0", `{"iface_id":"eth0","host_dev_name":"tap0"}`},
	{"PATCH /network-interfaces/{iface_id}", "/network-interfaces/eth0", `{"iface_id":"eth0"}`},
	{"DELETE /network-interfaces/{iface_id}", "/network-interfaces/eth0", ""},
	{"PUT /vsock", "/vsock", `{"guest_cid":3,"uds_path":"vsock"}`},
	{"PUT /balloon", "/balloon", `{"amount_mib":0,"deflate_on_oom":false,"stats_polling_interval_s":1}`},
	{"PATCH /balloon", "/balloon", `{"amount_mib":0}`},
	{"GET /balloon", "/balloon", ""},
	{"GET /balloon/statistics", "/balloon/statistics", ""},
	{"PATCH /balloon/statistics", "/balloon/statistics", `{"stats_polling_interval_s":2}`},
	{"GET /balloon/hinting/status", "/balloon/hinting/status", ""},
	{"PATCH /balloon/hinting/start", "/balloon/hinting/start", `{}`},
	{"PATCH /balloon/hinting/stop", "/balloon/hinting/stop", `{}`},
	{"GET /mmds", "/mmds", ""},
	{"PUT /mmds", "/mmds", `{"a":1}`},
	{"PATCH /mmds", "/mmds", `{"b":1}`},
	{"PUT /mmds/config", "/mmds/config", `{"network_interfaces":["eth0"]}`},
	{"PUT /logger", "/logger", `{"log_path":"log","level":"Info"}`},
	{"PUT /metrics", "/metrics", `{"metrics_path":"metrics"}`},
	{"PUT /serial", "/serial", `{"serial_out_path":"log"}`},
	{"PUT /entropy", "/entropy", `{}`},
	{"PUT /hotplug/memory", "/hotplug/memory", `{"total_size_mib":1024}`},
	{"PATCH /hotplug/memory", "/hotplug/memory", `{"requested_size_mib":0}`},
	{"GET /hotplug/memory", "/hotplug/memory", ""},
	{"PUT /snapshot/create", "/snapshot/create", `{"snapshot_path":"snapshot","mem_file_path":"memory"}`},
	{"PUT /snapshot/load", "/snapshot/load", `{"snapshot_path":"none","mem_backend":{"backend_type":"File","backend_path":"none"}}`},
	{"PATCH /vm", "/vm", `{"state":"Paused"}`},
	{"PATCH /vm", "/vm", `{"state":"Resumed"}`},
	{"PUT /actions", "/actions", `{"action_type":"FlushMetrics"}`},
	{"PUT /actions", "/actions", `{"action_type":"SendCtrlAltDel"}`},
	{"PUT /actions", "/actions", `{"action_type":"InstanceStart"}`},
}

// wrong are requests that each version refuses for what they are.
var wrong = []call{
	{"GET /", "/", `{}`}, {"GET /none", "/none", ""}, {"PUT /none", "/none", `{}`}, {"PATCH /none", "/none", `{}`}, {"PUT /vsock", "/vsock", ""}, {"PATCH /vm", "/vm", ""},
	{"PUT /vsock", "/vsock", `{`}, {"PUT /drives/{drive_id}", "/drives/d1", `{"drive_id":"d1"}`}, {"PATCH /machine-config", "/machine-config", `{}`},
	{"PUT /snapshot/load", "/snapshot/load", `{"snapshot_path":"x"}`}, {"PUT /snapshot/load", "/snapshot/load", `{"snapshot_path":"x","mem_file_path":"x","mem_backend":{"backend_type":"File","backend_path":"x"}}`},
}

func TestEveryRouteHasARow(t *testing.T) {
	rows := map[string]bool{}
	for _, c := range calls {
		rows[c.route] = true
	}
	for _, r := range Releases() {
		for route := range r.Routes {
			if !rows[route] {
				t.Errorf("%s of %s has no row", route, r.Version)
			}
		}
	}
}

// lab makes VMMs of both kinds.
type lab struct {
	binary, kernel, version string
	bodies                  bool // of successes are compared too
}

func newLab(t *testing.T) *lab {
	p := ring.Real(t)
	out, err := exec.CommandContext(t.Context(), p.Firecracker, "--version").Output()
	if err != nil {
		t.Fatal(err)
	}
	version, _, _ := strings.Cut(strings.TrimPrefix(string(out), "Firecracker v"), "\n")
	l := &lab{binary: p.Firecracker, kernel: filepath.Join(t.TempDir(), "kernel"), version: version}
	if err := tinyguest.Write(l.kernel, tinyguest.Program{Text: "x"}); err != nil {
		t.Fatal(err)
	}
	return l
}

// both tells a sequence of calls to a fresh real VMM and to a fresh fake one, and returns how each answered the last.
func (l *lab) both(t *testing.T, sequence ...call) (real, fake string) {
	t.Helper()
	dir := t.TempDir()
	errs := []error{os.Link(l.kernel, filepath.Join(dir, "kernel")), os.WriteFile(filepath.Join(dir, "disk"), make([]byte, 4096), 0o600)}
	for _, name := range []string{"log", "metrics"} {
		errs = append(errs, os.WriteFile(filepath.Join(dir, name), nil, 0o600))
	}
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
	fake = l.fake(t, dir, sequence)
	return l.real(t, dir, sequence, fake == gone), fake
}

// gone is the answer of a VMM that has ended.
const gone = "gone"

// real uses a network namespace of its own: a TAP that is asked for is made there. Of a VMM that is to end, and may still answer meanwhile, the end is awaited.
func (l *lab) real(t *testing.T, dir string, sequence []call, ends bool) (answer string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), l.binary, "--api-sock", "api")
	cmd.Dir, cmd.SysProcAttr = dir, &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		cmd.Process.Kill()
		cmd.Wait()
	}()
	conn := dial(t, filepath.Join(dir, "api"))
	defer conn.Close()
	reader := bufio.NewReader(conn)
	for _, c := range sequence {
		answer = l.ask(conn, reader, c)
	}
	if ends {
		cmd.Wait()
		return gone
	}
	return answer
}

func dial(t *testing.T, path string) net.Conn {
	t.Helper()
	directory, err := os.Open(filepath.Dir(path)) // the path may be too long for a socket's name
	if err != nil {
		t.Fatal(err)
	}
	defer directory.Close()
	path = fmt.Sprintf("/proc/self/fd/%d/%s", directory.Fd(), filepath.Base(path))
	for begin := time.Now(); ; time.Sleep(200 * time.Microsecond) {
		conn, err := net.Dial("unix", path)
		if err == nil {
			return conn
		}
		if time.Since(begin) > 20*time.Second {
			t.Fatalf("the VMM does not listen: %v", err)
		}
	}
}

func (l *lab) ask(conn net.Conn, reader *bufio.Reader, c call) string {
	request := c.method() + " " + c.path + " HTTP/1.1\r\nHost: x\r\n"
	if c.body != "" {
		request += fmt.Sprintf("Content-Type: application/json\r\nContent-Length: %d\r\n", len(c.body))
	}
	if _, err := io.WriteString(conn, request+"\r\n"+c.body); err != nil {
		return gone
	}
	response, err := http.ReadResponse(reader, nil)
	if err != nil {
		return gone
	}
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return gone
	}
	return l.tell(response.StatusCode, body)
}

func (l *lab) fake(t *testing.T, dir string, sequence []call) (answer string) {
	t.Helper()
	release, err := Find(l.version)
	if err != nil {
		t.Fatal(err)
	}
	v := &VMM{Release: release, ID: "anonymous-instance", Dir: dir}
	for _, c := range sequence {
		if v.Dead() {
			return gone
		}
		answer = l.tell(v.Do(c.method(), c.path, []byte(c.body)))
	}
	return answer
}

// tell makes answers comparable: of a success the status, of a refusal also the text.
func (l *lab) tell(status int, body []byte) string {
	if status < 300 && !l.bodies {
		return fmt.Sprint(status)
	}
	var value any
	if json.Unmarshal(body, &value) == nil && status < 300 {
		body, _ = json.Marshal(value) // with sorted keys
	}
	return fmt.Sprint(status, " ", string(body))
}

// inParallel runs f for all of n, a few at a time.
func inParallel[T any](all []T, f func(T)) {
	var group sync.WaitGroup
	next := make(chan T)
	for range 4 {
		group.Go(func() {
			for one := range next {
				f(one)
			}
		})
	}
	for _, one := range all {
		next <- one
	}
	close(next)
	group.Wait()
}

func TestRealEveryRouteAnswersAlike(t *testing.T) {
	l := newLab(t)
	var single []call
	for _, c := range append(calls, wrong...) {
		single = append(single, c)
		if c.body != "" {
			single = append(single, call{c.route, c.path, `{"nonsense":1}`}, call{c.route, c.path, `{}`})
		}
	}
	inParallel(single, func(c call) {
		if real, fake := l.both(t, c); real != fake {
			t.Errorf("%s\nreal: %s\nfake: %s", c, real, fake)
		}
	})
}

type pair struct{ first, second call }

// pairs returns all ordered pairs of which the first may change anything.
func pairs() []pair {
	var all []pair
	for _, first := range calls {
		for _, second := range calls {
			if first.method() != "GET" {
				all = append(all, pair{first, second})
			}
		}
	}
	return all
}

func TestRealPairsBeforeTheStartAnswerAlike(t *testing.T) {
	l := newLab(t)
	inParallel(pairs(), func(p pair) {
		if real, fake := l.both(t, p.first, p.second); real != fake {
			t.Errorf("%s, then %s\nreal: %s\nfake: %s", p.first, p.second, real, fake)
		}
	})
}

func TestRealPairsAfterTheStartAnswerAlike(t *testing.T) {
	l := newLab(t)
	release, err := Find(l.version)
	if err != nil {
		t.Fatal(err)
	}
	var begin []call
	for _, c := range calls {
		key, _, err := release.find(c.method(), c.path)
		switch key {
		case "PUT /mmds", "PUT /logger", "PUT /metrics", "PUT /serial", "PUT /cpu-config", "PUT /snapshot/create", "PUT /snapshot/load", "PUT /actions":
			continue
		}
		if err == nil && c.method() == "PUT" {
			begin = append(begin, c)
		}
	}
	begin = append(begin, calls[len(calls)-1])
	inParallel(pairs(), func(p pair) {
		if real, fake := l.both(t, append(append([]call(nil), begin...), p.first, p.second)...); real != fake {
			t.Errorf("started, %s, then %s\nreal: %s\nfake: %s", p.first, p.second, real, fake)
		}
	})
}
