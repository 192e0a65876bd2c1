//go:build linux

package agent

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/tangle-network/microvm-runtime/internal/wire"
)

const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// command is what a request comes down to on this system.
type command struct {
	path       string
	argv, env  []string
	dir        string
	credential *syscall.Credential // nil: the agent's own
}

// requestError is an error with its code on the wire.
type requestError struct {
	code string
	err  error
}

func (e *requestError) Error() string { return e.err.Error() }
func (e *requestError) Unwrap() error { return e.err }

func refuse(code, format string, args ...any) error {
	return &requestError{code, fmt.Errorf(format, args...)}
}

// resolve looks the request's user, directory and program up. What is kept for every command goes under the request's own variables.
func resolve(request *wire.Exec, kept []string) (*command, error) {
	if len(request.Argv) == 0 || request.Argv[0] == "" {
		return nil, refuse(wire.CodeInvalid, "no program is given")
	}
	for _, text := range append(append([]string{request.Dir, request.User}, request.Argv...), request.Env...) {
		if strings.ContainsRune(text, 0) {
			return nil, refuse(wire.CodeInvalid, "a NUL byte stands in an argument, a variable, the directory or the user") // which one may be a secret
		}
	}
	who, credential, err := identity(request.User)
	if err != nil {
		return nil, err
	}
	env := environment(who, request.TTY != nil, slices.Concat(kept, request.Env))
	dir := request.Dir
	if dir == "" {
		dir = who.HomeDir
		if info, err := os.Stat(dir); err != nil || !info.IsDir() {
			dir = "/"
		}
	} else if info, err := os.Stat(dir); err != nil || !info.IsDir() {
		return nil, refuse(wire.CodeNotFound, "directory %q is not there", dir)
	}
	path, err := lookPath(request.Argv[0], dir, env)
	if err != nil {
		return nil, err
	}
	return &command{path: path, argv: request.Argv, env: env, dir: dir, credential: credential}, nil
}

// identity returns the user of NAME, UID, or either with :GROUP or :GID.
func identity(text string) (*user.User, *syscall.Credential, error) {
	name, group, hasGroup := strings.Cut(text, ":")
	who := &user.User{Uid: strconv.Itoa(os.Getuid()), Gid: strconv.Itoa(os.Getgid()), Username: "root", HomeDir: "/root"}
	if name == "" && !hasGroup {
		if os.Getuid() != 0 {
			who.Username, who.HomeDir = who.Uid, "/"
		}
		return who, nil, nil
	}
	if name != "" {
		found, err := lookUser(name)
		if err != nil {
			return nil, nil, err
		}
		who = found
	}
	if hasGroup {
		gid, err := lookGroup(group)
		if err != nil {
			return nil, nil, err
		}
		who.Gid = gid
	}
	uid, err1 := strconv.ParseUint(who.Uid, 10, 32)
	gid, err2 := strconv.ParseUint(who.Gid, 10, 32)
	if err := errors.Join(err1, err2); err != nil {
		return nil, nil, refuse(wire.CodeInvalid, "user %q: %w", text, err)
	}
	return who, &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid), Groups: groups(who)}, nil
}

func lookUser(name string) (*user.User, error) {
	if found, err := user.Lookup(name); err == nil {
		return found, nil
	}
	if _, err := strconv.ParseUint(name, 10, 32); err != nil {
		return nil, refuse(wire.CodeNotFound, "user %q is not known in the guest", name)
	}
	if found, err := user.LookupId(name); err == nil {
		return found, nil
	}
	return &user.User{Uid: name, Gid: name, Username: name, HomeDir: "/"}, nil
}

func lookGroup(name string) (string, error) {
	if found, err := user.LookupGroup(name); err == nil {
		return found.Gid, nil
	}
	if _, err := strconv.ParseUint(name, 10, 32); err != nil {
		return "", refuse(wire.CodeNotFound, "group %q is not known in the guest", name)
	}
	return name, nil
}

// groups returns the user's supplementary groups; none for a user that is only a number.
func groups(who *user.User) []uint32 {
	ids, err := who.GroupIds()
	if err != nil {
		return nil
	}
	var gids []uint32
	for _, id := range ids {
		if gid, err := strconv.ParseUint(id, 10, 32); err == nil {
			gids = append(gids, uint32(gid))
		}
	}
	return gids
}

// environment returns the defaults with the request's own over them.
func environment(who *user.User, terminal bool, own []string) []string {
	term := "dumb"
	if terminal {
		term = "xterm"
	}
	env := []string{"PATH=" + defaultPath, "HOME=" + who.HomeDir, "USER=" + who.Username, "LOGNAME=" + who.Username, "TERM=" + term}
	for _, pair := range own {
		name, _, ok := strings.Cut(pair, "=")
		if !ok || name == "" {
			continue
		}
		for i, old := range env {
			if strings.HasPrefix(old, name+"=") {
				env[i], pair = pair, ""
				break
			}
		}
		if pair != "" {
			env = append(env, pair)
		}
	}
	return env
}

// lookPath finds the program in the request's own PATH, as execvp(3) does.
func lookPath(name, dir string, env []string) (string, error) {
	if strings.Contains(name, "/") {
		if !filepath.IsAbs(name) {
			name = filepath.Join(dir, name)
		}
		return name, nil
	}
	for _, pair := range env {
		list, ok := strings.CutPrefix(pair, "PATH=")
		if !ok {
			continue
		}
		for _, place := range filepath.SplitList(list) {
			if !filepath.IsAbs(place) { // an empty one too is the directory that the program will be in
				place = filepath.Join(dir, place)
			}
			path := filepath.Join(place, name)
			if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
				return path, nil
			}
		}
		return "", refuse(wire.CodeNotFound, "program %q is not in PATH %s", name, list)
	}
	return "", refuse(wire.CodeNotFound, "program %q: PATH is not set", name)
}

func startError(path string, err error) error {
	switch {
	case errors.Is(err, os.ErrNotExist), errors.Is(err, syscall.ENOTDIR):
		return refuse(wire.CodeNotFound, "program %q, or its interpreter, is not there", path)
	case errors.Is(err, syscall.E2BIG):
		return refuse(wire.CodeInvalid, "program %q: its arguments and environment are too long for the guest's system", path)
	case errors.Is(err, os.ErrPermission), errors.Is(err, syscall.ENOEXEC):
		return refuse(wire.CodeDenied, "program %q: %w", path, err)
	}
	return refuse(wire.CodeInternal, "program %q: %w", path, err)
}
