export const options = { backend: 'cpu' };
