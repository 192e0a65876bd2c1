//go:build linux

package setup

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// maxKernel bounds what is fetched as a kernel, in bytes.
const maxKernel = 1 << 30

// packageName is what Debian allows as one, so that no text is an option of apt's.
var packageName = regexp.MustCompile(`^[a-z0-9][a-z0-9+.-]+$`)

// FetchKernel gets a kernel into a directory and returns the path of its file: the package of that name, by apt, which checks its signature; or what is at an http or https URL, whose
// sha256 must be given. An empty text is the distribution's present kernel for virtual machines. A package that only depends on the present one of its kind stands for that.
func FetchKernel(ctx context.Context, dir, source, sum string, progress io.Writer) (string, error) {
	r := &runner{parts: Parts{Cache: dir}, out: progress, begin: time.Now()}
	isURL := strings.HasPrefix(source, "https://") || strings.HasPrefix(source, "http://")
	switch {
	case isURL && len(sum) != 2*sha256.Size:
		return "", fmt.Errorf("%s: its sha256 must be given: 64 hexadecimal digits", source)
	case isURL:
		return r.download(ctx, source, sum)
	case sum != "":
		return "", errors.New("a sha256 is for a URL: apt checks its packages itself")
	case source != "" && !packageName.MatchString(source):
		return "", fmt.Errorf("%q is neither a URL nor a package's name", source)
	}
	name, err := r.currentKernel(ctx, source)
	if err != nil {
		return "", err
	}
	return r.downloadPackage(ctx, dir, name)
}

// downloadPackage gets a package's file into a directory that is empty.
func (r *runner) downloadPackage(ctx context.Context, dir, name string) (string, error) {
	r.say("kernel: fetching %s", name)
	if err := r.command(ctx, dir, "apt-get", "download", "-q", "-o", "APT::Sandbox::User=root", name); err != nil {
		return "", err
	}
	debs, err := filepath.Glob(filepath.Join(dir, "*.deb"))
	if err != nil || len(debs) != 1 {
		return "", fmt.Errorf("apt-get download left %d packages", len(debs))
	}
	return debs[0], nil
}

// download gets a file, which must have that sum.
func (r *runner) download(ctx context.Context, url, sum string) (_ string, err error) {
	r.say("kernel: fetching %s", url)
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	client := &http.Client{Transport: &http.Transport{ResponseHeaderTimeout: 30 * time.Second, TLSHandshakeTimeout: 10 * time.Second, Proxy: http.ProxyFromEnvironment}}
	defer client.CloseIdleConnections()
	response, err := client.Do(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return "", fmt.Errorf("%s: %s", url, response.Status)
	}
	f, err := os.OpenFile(filepath.Join(r.parts.Cache, "kernel"), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	hash := sha256.New()
	n, err := io.Copy(io.MultiWriter(f, hash), io.LimitReader(response.Body, maxKernel+1))
	switch got := hex.EncodeToString(hash.Sum(nil)); {
	case err != nil:
		return "", fmt.Errorf("%s: %w", url, err)
	case n > maxKernel:
		return "", fmt.Errorf("%s: more than %d bytes", url, maxKernel)
	case !strings.EqualFold(got, sum):
		return "", fmt.Errorf("%s has sha256 %s, not %s", url, got, sum)
	}
	return f.Name(), nil
}
