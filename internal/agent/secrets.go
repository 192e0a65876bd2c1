//go:build linux

package agent

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/tangle-network/microvm-runtime/internal/wire"
)

// SecretsDir is where the first process of a microVM keeps secrets: /run is memory, and no disk ever has them.
const SecretsDir = "/run/microvm/secrets"

// secrets are files of memory, for root alone. Their values are nobody's to print.
type secrets struct {
	dir string

	mu sync.Mutex
}

func (s *Server) listSecrets(w http.ResponseWriter, _ *http.Request) {
	names, err := s.secrets.names()
	if err != nil {
		fail(w, err)
		return
	}
	answer(w, wire.Secrets{Names: names})
}

func (s *Server) setSecret(w http.ResponseWriter, r *http.Request) {
	if r.ContentLength < 0 || r.ContentLength > wire.MaxSecret {
		fail(w, refuse(wire.CodeInvalid, "a secret of %d bytes (at most %d are kept, and the length must be told)", r.ContentLength, wire.MaxSecret))
		return
	}
	value := make([]byte, r.ContentLength) // of its length: nothing is copied when it grows
	defer clear(value)
	if _, err := io.ReadFull(r.Body, value); err != nil {
		fail(w, refuse(wire.CodeInvalid, "body: %w", err))
		return
	}
	if err := s.secrets.set(r.PathValue("name"), value); err != nil {
		fail(w, err)
		return
	}
	answer(w, struct{}{})
}

func (s *Server) deleteSecret(w http.ResponseWriter, r *http.Request) {
	if err := s.secrets.remove(r.PathValue("name")); err != nil {
		fail(w, err)
		return
	}
	answer(w, struct{}{})
}

// set keeps a secret, in place of an older one of the name: who opens it has all of either.
func (s *secrets) set(name string, value []byte) error {
	if len(value) > wire.MaxSecret {
		return refuse(wire.CodeInvalid, "a secret of %d bytes (at most %d are kept)", len(value), wire.MaxSecret)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	path, err := s.path(name)
	if err != nil {
		return err
	}
	if err := s.prepare(); err != nil {
		return err
	}
	names, err := s.list()
	if err != nil {
		return err
	}
	if _, err := os.Lstat(path); len(names) >= wire.MaxSecrets && err != nil {
		return refuse(wire.CodeBusy, "%d secrets are kept already", len(names))
	}
	return replaceFile(path, filepath.Join(s.dir, ".new"), value, 0o600) // no secret has that name
}

// replaceFile replaces a file, by way of another beside it: who reads it meanwhile has all of either. Its content survives power loss where the directory is synced then.
func replaceFile(path, other string, content []byte, perm os.FileMode) error {
	os.Remove(other) // of an agent that ended meanwhile
	f, err := os.OpenFile(other, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err = errors.Join(err, f.Chmod(perm), f.Sync(), f.Close()); err == nil {
		err = os.Rename(other, path)
	}
	if err != nil {
		os.Remove(other)
	}
	return err
}

// remove overwrites a secret, so that the memory is not just free, and removes it.
func (s *secrets) remove(name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	path, err := s.path(name)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|unix.O_NOFOLLOW, 0)
	if errors.Is(err, os.ErrNotExist) {
		return refuse(wire.CodeNotFound, "secret %s is not there", name)
	}
	if err == nil {
		if info, failed := f.Stat(); failed == nil && info.Mode().IsRegular() {
			f.Write(make([]byte, min(info.Size(), wire.MaxSecret)))
		}
		f.Close()
	}
	return os.Remove(path)
}

func (s *secrets) names() ([]string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.list()
}

// list returns the names in order. What else somebody has put there is none of ours.
func (s *secrets) list() ([]string, error) {
	names := []string{}
	entries, err := os.ReadDir(s.dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	for _, entry := range entries {
		if wire.ValidSecret(entry.Name()) && len(names) < 2*wire.MaxSecrets {
			names = append(names, entry.Name())
		}
	}
	return names, nil
}

func (s *secrets) path(name string) (string, error) {
	if !wire.ValidSecret(name) {
		return "", refuse(wire.CodeInvalid, "secret %.80q (a name must be 1 to 64 of a-z, A-Z, 0-9, _ and -)", name)
	}
	if s.dir == "" {
		return "", refuse(wire.CodeDenied, "this agent keeps no secrets")
	}
	return filepath.Join(s.dir, name), nil
}

// prepare makes the directory, and refuses one that is not in memory.
func (s *secrets) prepare() error {
	if err := os.MkdirAll(filepath.Dir(s.dir), 0o755); err != nil {
		return err
	}
	if err := os.Mkdir(s.dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	if err := os.Chmod(s.dir, 0o700); err != nil {
		return err
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(s.dir, &fs); err != nil {
		return fmt.Errorf("statfs %s: %w", s.dir, err)
	}
	if fs.Type != unix.TMPFS_MAGIC && fs.Type != unix.RAMFS_MAGIC {
		return refuse(wire.CodeDenied, "%s is not in memory, and no secret is written to a disk (mount a tmpfs at /run)", s.dir)
	}
	return nil
}
