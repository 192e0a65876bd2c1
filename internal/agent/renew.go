//go:build linux

package agent

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/tangle-network/microvm-runtime/internal/disk"
	"github.com/tangle-network/microvm-runtime/internal/wire"
)

// Where a guest finds what tells its machine from others, and puts what is to be done when it is restored. Below system.root.
const (
	generationFile = "/run/microvm/generation"
	machineIDFile  = "/etc/machine-id"
	hostKeys       = "/etc/ssh/ssh_host_*_key"
	hooksDir       = "/etc/microvm/resume.d"
)

// hookPatience is how long one hook may take.
const hookPatience = 10 * time.Second

// restPatience is how long what it has said may take to be read then.
const restPatience = 100 * time.Millisecond

// renewing is one renewal: what a machine that was restored has to be its own for.
type renewing struct {
	*Server
	request *wire.Renew
	arrived time.Time // when the request came: its time was the host's then
	items   []wire.RenewedItem
}

// remembered is one that was done.
type remembered struct {
	of    [sha256.Size]byte
	items []wire.RenewedItem
	keyed string // the token of the renewal that made an SSH server's keys: the next of that machine leaves them
}

func (s *Server) renew(w http.ResponseWriter, r *http.Request) {
	arrived := time.Now()
	change(s, w, r, func(request *wire.Renew) (any, error) {
		defer func() {
			clear(request.Entropy)
			for _, secret := range request.Secrets {
				clear(secret)
			}
		}()
		if err := checkRenew(request); err != nil {
			return nil, err
		}
		if stands := s.Frozen(); stands != "" && stands != request.Token { // it would for ever
			return nil, refuse(wire.CodeInvalid, "what was started stands for the token %.80q, not for %.80q", stands, request.Token)
		}
		s.workload.hold(request.Token)
		s.renewal.Lock() // a host that lost its connection asks again
		defer s.renewal.Unlock()
		one := &renewing{Server: s, request: request, arrived: arrived}
		if one.run() && !request.Hold {
			if _, err := s.workload.thaw(request.Token); err != nil {
				return nil, fmt.Errorf("thaw: %w", err)
			}
		}
		return wire.Renewed{Items: one.items}, nil
	})
}

func checkRenew(r *wire.Renew) error {
	switch {
	case !wire.ValidID(r.Token) || !wire.ValidID(r.Generation):
		return refuse(wire.CodeInvalid, "token %.80q, generation %.80q (they must be 1 to 64 of a-z, A-Z and 0-9)", r.Token, r.Generation)
	case r.Unix < 0:
		return refuse(wire.CodeInvalid, "a time before 1970")
	case len(r.Entropy) < wire.MinEntropy || len(r.Entropy) > wire.MaxEntropy:
		return refuse(wire.CodeInvalid, "%d bytes of entropy (it must be %d to %d)", len(r.Entropy), wire.MinEntropy, wire.MaxEntropy)
	case r.MachineID != "" && !wire.ValidMachineID(r.MachineID):
		return refuse(wire.CodeInvalid, "machine id %.80q (it must be 32 lowercase hexadecimal digits)", r.MachineID)
	case r.Hostname != "" && !wire.ValidHostname(r.Hostname):
		return refuse(wire.CodeInvalid, "host name %.80q", r.Hostname)
	}
	return nil
}

// errNothing is returned where there is nothing to be done; its text says why.
type errNothing string

func (e errNothing) Error() string { return string(e) }

// run does all, in this order, and says whether the workload may go on: nothing mandatory failed. Of one that was done, and is asked for again, it sets the clock by the later question, gives
// random numbers, and says what became of the rest: hooks that take longer than a host's patience would be run for ever.
func (r *renewing) run() bool {
	r.do("clock", true, r.setClock)
	r.do("entropy", true, r.addEntropy)
	const timed = 2
	of := r.digest()
	if again := r.renewed.items != nil && r.renewed.of == of; again {
		r.items = append(r.items, r.renewed.items[timed:]...)
		return !r.failed()
	}
	r.doRest()
	if r.failed() {
		return false
	}
	r.renewed.of, r.renewed.items = of, r.items
	return true
}

// digest tells renewals from others, whatever their times and random bytes.
func (r *renewing) digest() [sha256.Size]byte {
	same := *r.request
	same.Unix, same.Entropy = 0, nil
	text, _ := json.Marshal(same) // texts and bytes alone: it can't fail
	defer clear(text)
	return sha256.Sum256(text)
}

func (r *renewing) failed() bool {
	return slices.ContainsFunc(r.items, func(item wire.RenewedItem) bool { return item.Mandatory && item.Error != "" })
}

func (r *renewing) doRest() {
	r.do("machine-id", true, r.setMachineID)
	r.do("hostname", true, r.nameHost)
	r.do("generation", true, r.setGeneration)
	r.do("environment", true, r.setVariables)
	r.do("secrets", true, r.setSecrets)
	r.do("ssh-host-keys", false, r.ownHostKeys)
	if !r.request.Hold {
		r.runHooks()
	}
}

// do does one thing, and notes what became of it.
func (r *renewing) do(name string, mandatory bool, do func() (detail string, err error)) {
	detail, err := do()
	item := wire.RenewedItem{Item: name, Mandatory: mandatory, Detail: cut(detail), Done: err == nil}
	if nothing, ok := errors.AsType[errNothing](err); ok {
		item.Detail = cut(string(nothing))
	} else if err != nil {
		item.Error = cut(err.Error())
	}
	r.items = append(r.items, item)
}

func cut(text string) string { return strings.ToValidUTF8(text[:min(len(text), wire.MaxDetail)], "") }

func (r *renewing) setClock() (string, error) {
	to := time.Unix(0, int64(r.request.Unix)).Add(time.Since(r.arrived))
	skew := time.Now().Round(0).Sub(to)
	return fmt.Sprintf("it was %v ahead", skew), r.system.setClock(to)
}

func (r *renewing) addEntropy() (string, error) {
	return fmt.Sprintf("%d bytes", len(r.request.Entropy)), r.system.addEntropy(r.request.Entropy)
}

func (r *renewing) setMachineID() (string, error) {
	path := filepath.Join(r.system.root, machineIDFile)
	if r.request.MachineID == "" {
		return "", errNothing("none was given")
	}
	if _, err := os.Lstat(path); errors.Is(err, os.ErrNotExist) {
		return "", errNothing("the image has no " + machineIDFile)
	}
	return r.request.MachineID, replaceText(path, r.request.MachineID)
}

// replaceText replaces a file of one line that all may read. Once it returns, a machine that is killed and started again has it too.
func replaceText(path, text string) error {
	if err := replaceFile(path, path+".microvm-new", []byte(text+"\n"), 0o444); err != nil {
		return err
	}
	return disk.SyncDir(filepath.Dir(path))
}

func (r *renewing) nameHost() (string, error) {
	if r.request.Hostname == "" {
		return "", errNothing("none was given")
	}
	return r.request.Hostname, r.system.setHostname(r.request.Hostname)
}

func (r *renewing) setGeneration() (string, error) {
	path := filepath.Join(r.system.root, generationFile)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return "", err
	}
	return r.request.Generation, replaceText(path, r.request.Generation)
}

func (r *renewing) setVariables() (string, error) {
	if len(r.request.Env) == 0 {
		return "", errNothing("none were given")
	}
	return fmt.Sprint(len(r.request.Env), " set"), r.env.merge(r.request.Env)
}

func (r *renewing) setSecrets() (string, error) {
	if len(r.request.Secrets) == 0 {
		return "", errNothing("none were given")
	}
	for _, name := range slices.Sorted(maps.Keys(r.request.Secrets)) {
		if err := r.secrets.set(name, r.request.Secrets[name]); err != nil {
			return "", err
		}
	}
	return fmt.Sprint(len(r.request.Secrets), " set"), nil
}

// ownHostKeys sees to it that an SSH server's keys are the machine's own.
func (r *renewing) ownHostKeys() (string, error) {
	if r.renewed.keyed == r.request.Token {
		return "made before", nil
	}
	detail, err := r.makeHostKeys()
	if err == nil && r.request.Hold {
		r.renewed.keyed = r.request.Token
	}
	return detail, err
}

// makeHostKeys makes an SSH server's keys anew. One that runs has the old ones in its memory: a hook may start it again.
func (r *renewing) makeHostKeys() (string, error) {
	keys, err := filepath.Glob(filepath.Join(r.system.root, hostKeys))
	if err != nil || len(keys) == 0 {
		return "", errors.Join(err, errNothing("there are none"))
	}
	maker, err := lookPath("ssh-keygen", "/", []string{"PATH=" + defaultPath})
	if err != nil {
		return "", fmt.Errorf("%d keys stay that all machines of the snapshot have: %w", len(keys), err)
	}
	for _, key := range keys {
		if err := os.Remove(key); err != nil {
			return "", err
		}
		if err := os.Remove(key + ".pub"); err != nil && !errors.Is(err, os.ErrNotExist) {
			return "", err
		}
	}
	args := []string{"-A"}
	if r.system.root != "" {
		args = append(args, "-f", r.system.root)
	}
	_, err = r.runProgram(maker, args...)
	return fmt.Sprint(len(keys), " made anew"), err
}

// runHooks runs what the image, or who prepared the snapshot, wants to be done, in order of their names. What is in the workload stands meanwhile.
func (r *renewing) runHooks() {
	dir := filepath.Join(r.system.root, hooksDir)
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return
	}
	if err != nil { // any may be required
		r.do("hooks", true, func() (string, error) { return "", err })
		return
	}
	var hooks []string
	for _, entry := range entries {
		info, err := os.Stat(filepath.Join(dir, entry.Name()))
		if required(entry.Name()) || err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			hooks = append(hooks, entry.Name())
		}
	}
	room := wire.MaxItems - len(r.items)
	if len(hooks) > room {
		rest := hooks[room-1:]
		hooks = hooks[:room-1]
		defer r.do("hooks", slices.ContainsFunc(rest, required), func() (string, error) {
			return "", fmt.Errorf("%d are not run, from %.80q on: there is an answer's room for %d", len(rest), rest[0], room-1)
		})
	}
	for _, name := range hooks {
		r.do("hook "+cut(name), required(name), func() (string, error) { return r.runProgram(filepath.Join(dir, name)) })
	}
}

// required says whether a machine whose hook fails, or can't be run, is not to go on.
func required(hook string) bool { return strings.HasSuffix(hook, ".required") }

// runProgram runs a program outside of the workload, and returns the end of what it says.
func (r *renewing) runProgram(path string, args ...string) (string, error) {
	out, in, err := os.Pipe()
	if err != nil {
		return "", err
	}
	defer out.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		in.Close()
		return "", err
	}
	env := []string{"PATH=" + defaultPath, "HOME=/root", "MICROVM_GENERATION=" + r.request.Generation, "MICROVM_HOSTNAME=" + r.request.Hostname}
	child, err := r.children.startOutside(&command{path: path, argv: append([]string{path}, args...), env: env, dir: "/"}, []*os.File{null, in, in})
	null.Close()
	in.Close()
	if err != nil {
		return "", startError(path, err)
	}
	said := &tail{}
	var reading sync.WaitGroup
	reading.Go(func() { said.readAll(out) })
	status, late := r.children.await(child, hookPatience)
	out.SetReadDeadline(time.Now().Add(restPatience)) // what it has left behind may hold the pipe
	reading.Wait()
	switch {
	case late:
		return said.String(), fmt.Errorf("it did not end within %v: %s", hookPatience, said)
	case !status.Exited() || status.ExitStatus() != 0:
		return said.String(), fmt.Errorf("it ended with %s: %s", describe(status), said)
	}
	return said.String(), nil
}

func describe(status syscall.WaitStatus) string {
	if status.Signaled() {
		return fmt.Sprint("signal ", int(status.Signal()))
	}
	return fmt.Sprint("status ", status.ExitStatus())
}

// tail keeps the end of what is written to it.
type tail struct{ text []byte }

func (t *tail) Write(p []byte) (int, error) {
	t.text = append(t.text, p...)
	t.text = t.text[max(0, len(t.text)-wire.MaxDetail):]
	return len(p), nil
}

// readAll reads a pipe to its end, or to its deadline and what is there then.
func (t *tail) readAll(pipe *os.File) {
	if _, err := io.Copy(t, pipe); errors.Is(err, os.ErrDeadlineExceeded) { // which is said before anything is read
		part := make([]byte, 64<<10) // as much as a pipe holds
		n, _ := left(pipe, part)
		t.Write(part[:n])
	}
}

func (t *tail) String() string { return strings.TrimSpace(strings.ToValidUTF8(string(t.text), "")) }
