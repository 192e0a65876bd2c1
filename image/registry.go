//go:build linux

package image

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/google/go-containerregistry/pkg/v1/types"

	microvm "github.com/tangle-network/microvm-runtime"
)

// registry is one repository of a registry that we are logged in to.
type registry struct {
	store *Store
	repo  name.Repository
	http  *http.Client
}

// manifestTypes are what we ask for.
var manifestTypes = strings.Join([]string{string(types.OCIImageIndex), string(types.DockerManifestList), string(types.OCIManifestSchema1), string(types.DockerManifestSchema2)}, ", ")

// connect finds out how the registry wants to be asked, with the credentials that Docker or Podman have for it.
func (s *Store) connect(ctx context.Context, repo name.Repository, base http.RoundTripper) (*registry, error) {
	auth, err := authn.Resolve(ctx, authn.DefaultKeychain, repo)
	if err != nil {
		return nil, fmt.Errorf("credentials for %s: %w", repo.RegistryStr(), err)
	}
	r := &registry{store: s, repo: repo, http: &http.Client{CheckRedirect: checkRedirect}}
	err = s.retry(ctx, func(ctx context.Context) error {
		r.http.Transport, err = transport.NewWithContext(ctx, repo.Registry, auth, transport.NewUserAgent(base, "microvm-runtime"), []string{repo.Scope(transport.PullScope)})
		return err
	})
	return r, r.explain("log in", err)
}

// checkRedirect follows a registry to where its blobs are, but not from a public registry to an address within, and not to where everybody can listen.
func checkRedirect(to *http.Request, via []*http.Request) error {
	from := via[0].URL
	switch {
	case len(via) > 10:
		return errors.New("more than 10 redirects")
	case to.URL.Scheme != "https" && from.Scheme == "https":
		return fmt.Errorf("refused: %s leads from https to %s", from.Host, to.URL.Scheme)
	case to.URL.Hostname() != from.Hostname() && within(to.URL.Hostname()) && !within(from.Hostname()):
		return fmt.Errorf("refused: %s leads to the internal address %s", from.Host, to.URL.Host)
	}
	return nil
}

func within(host string) bool {
	address, err := netip.ParseAddr(host)
	if err != nil {
		return host == "localhost" || strings.HasSuffix(host, ".localhost")
	}
	return address.IsPrivate() || address.IsLoopback() || address.IsLinkLocalUnicast() || address.IsUnspecified() || address.IsMulticast()
}

// manifest returns what a tag or a digest means. What a digest means fits it.
func (r *registry) manifest(ctx context.Context, identifier string) (text []byte, err error) {
	err = r.store.retry(ctx, func(ctx context.Context) error {
		text, err = r.small(ctx, "manifests/"+identifier)
		return err
	})
	if err != nil {
		return nil, r.explain("manifest "+identifier, err)
	}
	if digest, err := v1.NewHash(identifier); err == nil {
		return text, fits(text, v1.Descriptor{Digest: digest, Size: int64(len(text))})
	}
	return text, nil
}

func (r *registry) document(ctx context.Context, d v1.Descriptor) (text []byte, err error) {
	if err := checkDocument(d); err != nil {
		return nil, err
	}
	if d.MediaType.IsImage() || d.MediaType.IsIndex() {
		text, err = r.manifest(ctx, d.Digest.String())
	} else {
		err = r.store.retry(ctx, func(ctx context.Context) error {
			text, err = r.small(ctx, "blobs/"+d.Digest.String())
			return err
		})
		err = r.explain("configuration", err)
	}
	if err != nil {
		return nil, err
	}
	return text, fits(text, d)
}

// small gets something whole.
func (r *registry) small(ctx context.Context, what string) ([]byte, error) {
	response, err := r.get(ctx, what, "")
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	return readDocument(response.Body)
}

// get asks for something of the repository, or for a range of it.
func (r *registry) get(ctx context.Context, what, ranges string) (*http.Response, error) {
	url := fmt.Sprintf("%s://%s/v2/%s/%s", r.repo.Scheme(), r.repo.RegistryStr(), r.repo.RepositoryStr(), what)
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	if strings.HasPrefix(what, "manifests/") {
		request.Header.Set("Accept", manifestTypes)
	}
	if ranges != "" {
		request.Header.Set("Range", ranges)
	}
	request.Header.Set("Accept-Encoding", "identity") // a layer's digest is that of the bytes that come
	response, err := r.http.Do(request)
	if err != nil {
		return nil, err
	}
	if err := transport.CheckError(response, http.StatusOK, http.StatusPartialContent); err != nil {
		response.Body.Close()
		return nil, err
	}
	return response, nil
}

// explain says what an answer of the registry means to the caller.
func (r *registry) explain(what string, err error) error {
	if err == nil {
		return nil
	}
	err = fmt.Errorf("%s of %s: %w", what, r.repo, err)
	answer := (*transport.Error)(nil)
	if !errors.As(err, &answer) {
		return err
	}
	switch answer.StatusCode {
	case http.StatusNotFound:
		return fmt.Errorf("%w: %w", microvm.ErrNotFound, err)
	case http.StatusUnauthorized, http.StatusForbidden:
		return fmt.Errorf("%w (there is none, or it is private: docker login %s)", err, r.repo.RegistryStr())
	case http.StatusTooManyRequests:
		return fmt.Errorf("%w: %w (wait, or docker login %s)", microvm.ErrExhausted, err, r.repo.RegistryStr())
	}
	return err
}

// layer returns the layer out of the cache of downloads, where it stays until its image is built.
func (r *registry) layer(ctx context.Context, d v1.Descriptor, report func(done int64)) (blob, error) {
	f, err := r.fetch(ctx, d, report)
	if err != nil {
		return blob{}, r.explain("layer "+d.Digest.String(), err)
	}
	return blob{ReaderAt: f, Closer: f, size: d.Size}, nil
}

// defaultTransport is a transport of the caller's own, which it has to close.
func defaultTransport() *http.Transport {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.ResponseHeaderTimeout = time.Minute
	t.DisableCompression = true
	return t
}

var _ source = (*registry)(nil)
